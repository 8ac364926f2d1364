"""Label Studio's own settings, with the middleware that adds the labelling page's script.

Django reads them where DJANGO_SETTINGS_MODULE=editloop_settings and this folder is on the path.
"""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"  # which read themselves while they are imported
from core.settings.label_studio import *  # noqa: F403 (Django's way to extend settings)
from core.settings.label_studio import MIDDLEWARE as LABEL_STUDIO_MIDDLEWARE

os.environ["DJANGO_SETTINGS_MODULE"] = __name__
MIDDLEWARE = ["editloop_middleware.labelling_script", *LABEL_STUDIO_MIDDLEWARE]
