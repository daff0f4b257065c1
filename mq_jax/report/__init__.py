def write_report(folders, output):
    pass
