"""Label Studio's own settings, with the middleware that adds the labelling page's script, and room for many people.

Django reads them where DJANGO_SETTINGS_MODULE=editloop_settings and this folder is on the path.
"""

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"  # which read themselves while they are imported
from core.settings.label_studio import *  # noqa: F403 (Django's way to extend settings)
from core.settings.label_studio import DATABASES
from core.settings.label_studio import MIDDLEWARE as LABEL_STUDIO_MIDDLEWARE
from django.core.servers.basehttp import WSGIServer

os.environ["DJANGO_SETTINGS_MODULE"] = __name__
# Connections that wait until `label-studio start` takes them. With Django's own 10 the system resets further ones, and
# answers with them, when many people ask at once.
WSGIServer.request_queue_size = 1024
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # SQLite has one writer at a time. Others wait 5 seconds by default, which is too short when many people answer at
    # once. And a transaction that read before it writes fails at once ("database is locked") where somebody else wrote
    # meanwhile: it has to ask for the writer's place when it begins.
    DATABASES["default"]["OPTIONS"] |= {"timeout": 120}
    if django.VERSION >= (5, 1):
        DATABASES["default"]["OPTIONS"] |= {"transaction_mode": "IMMEDIATE"}
MIDDLEWARE = ["editloop_middleware.labelling_script", *LABEL_STUDIO_MIDDLEWARE]
