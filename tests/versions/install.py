"""Installs the servers of package.json (npm packages with the programs alone) into a folder: install(folder)."""
import json
import os
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


def install(folder):
    """Returns {major version: folder of its programs}; quick when they are there."""
    os.makedirs(folder, exist_ok=True)
    lock, done = os.path.join(HERE, "package-lock.json"), os.path.join(folder, "package-lock.json")
    if not os.path.exists(done) or read(lock) != read(done):
        shutil.copy(os.path.join(HERE, "package.json"), folder)
        shutil.copy(lock, done + ".new")
        os.replace(done + ".new", done)
        try:
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder], check=True,
                           stdin=subprocess.DEVNULL)
            for name in names():
                make_symlinks(os.path.join(folder, "node_modules", name))
        except BaseException:
            os.unlink(done)
            raise
    return {int(name.split("-")[1]): os.path.join(folder, "node_modules", name, "native", "bin") for name in names()}


def names():
    return sorted(json.loads(read(os.path.join(HERE, "package.json")))["dependencies"])


def read(path):
    with open(path) as file:
        return file.read()


def make_symlinks(package):
    """npm packages hold no symbolic links: a list says which there should be (the package's own script does this)."""
    for link in json.loads(read(os.path.join(package, "native", "pg-symlinks.json"))):
        source, target = (os.path.join(package, link[end]) for end in ("source", "target"))
        if not os.path.lexists(target):
            os.symlink(os.path.relpath(source, os.path.dirname(target)), target)


if __name__ == "__main__":
    import sys
    print(install(sys.argv[1]))
