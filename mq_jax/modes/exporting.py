def run_export(folder, *, overwrite):
    raise NotImplementedError
