"""flux in a Django project: `"flux.django"` in INSTALLED_APPS, and `FLUX` in the settings.

`manage.py flux` has the commands; docs/guides/django.md describes all of it.
"""
