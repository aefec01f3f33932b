# It plants what it says into whoever imports it.
collect_ignore = ["planted.py"]
