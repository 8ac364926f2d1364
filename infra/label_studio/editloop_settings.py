"""Label Studio's own settings, with the middleware that adds the labelling page's script, and patience with SQLite.

Django reads them where DJANGO_SETTINGS_MODULE=editloop_settings and this folder is on the path.
"""

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"  # which read themselves while they are imported
from core.settings.label_studio import *  # noqa: F403 (Django's way to extend settings)
from core.settings.label_studio import DATABASES
from core.settings.label_studio import MIDDLEWARE as LABEL_STUDIO_MIDDLEWARE

os.environ["DJANGO_SETTINGS_MODULE"] = __name__
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # SQLite has one writer at a time. Others wait 5 seconds by default, which is too short when many people answer at
    # once. And a transaction that read before it writes fails at once ("database is locked") where somebody else wrote
    # meanwhile: it has to ask for the writer's place when it begins.
    DATABASES["default"]["OPTIONS"] |= {"timeout": 120}
    if django.VERSION >= (5, 1):
        DATABASES["default"]["OPTIONS"] |= {"transaction_mode": "IMMEDIATE"}
MIDDLEWARE = ["editloop_middleware.labelling_script", *LABEL_STUDIO_MIDDLEWARE]
