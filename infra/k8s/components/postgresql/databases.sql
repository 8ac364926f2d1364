-- The databases of MLflow and Label Studio, each with an owner of its own. Names and passwords come from the environment.
\set ON_ERROR_STOP on
\getenv mlflow_user MLFLOW_DATABASE_USER
\getenv mlflow_password MLFLOW_DATABASE_PASSWORD
\getenv label_studio_user LABEL_STUDIO_DATABASE_USER
\getenv label_studio_password LABEL_STUDIO_DATABASE_PASSWORD
CREATE ROLE :"mlflow_user" LOGIN PASSWORD :'mlflow_password';
CREATE ROLE :"label_studio_user" LOGIN PASSWORD :'label_studio_password';
CREATE DATABASE mlflow OWNER :"mlflow_user";
CREATE DATABASE label_studio OWNER :"label_studio_user";
REVOKE CONNECT ON DATABASE mlflow, label_studio, postgres FROM PUBLIC;
