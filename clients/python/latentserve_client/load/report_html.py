"""x"""


def write_html(path, report):
    pass
