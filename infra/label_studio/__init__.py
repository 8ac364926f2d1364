"""What runs inside Label Studio's server: it adds the script of the labelling page, through Django's own settings.

`editloop up` and `Dockerfile.label-studio` put this folder on the server's path and name `editloop_settings` as its
settings. The modules import nothing of EditLoop, which is not installed there.
"""
