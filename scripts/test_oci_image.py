#!/usr/bin/env python3
"""Tests of scripts/oci-image: what it writes is an image, and what is not an image is refused."""

import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import tarfile
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
LOADER = importlib.machinery.SourceFileLoader("oci_image", os.path.join(HERE, "oci-image"))
oci_image = importlib.util.module_from_spec(importlib.util.spec_from_loader("oci_image", LOADER))
LOADER.exec_module(oci_image)

BINARY = b"\x7fELF, as far as an image cares" * 100


class OciImage(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.image = os.path.join(self.folder, "image.oci.tar")
        oci_image.create(BINARY, "x86_64", "1.2.3+dirty", self.image)

    def rewritten(self, change):
        """The image with its files (name to bytes) changed."""
        files = dict(oci_image.Image(self.image).files)
        change(files)
        path = os.path.join(self.folder, "changed.oci.tar")
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                oci_image.add(archive, name, data, 0o644)
        return path

    def refused(self, change, words):
        with self.assertRaisesRegex(oci_image.Fault, words):
            oci_image.check(self.rewritten(change))

    def blob_with(self, files, field):
        (name,) = [n for n, data in files.items() if n.startswith("blobs") and field in data]
        return name

    def test_written_image_passes_its_own_check(self):
        oci_image.check(self.image)
        oci_image.check(self.rewritten(lambda files: None))

    def test_same_input_gives_the_same_bytes(self):
        second = os.path.join(self.folder, "second.oci.tar")
        oci_image.create(BINARY, "x86_64", "1.2.3+dirty", second)
        with open(self.image, "rb") as a, open(second, "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_image_holds_the_binary_and_runs_as_nobody_special(self):
        config, (layer,) = oci_image.Image(self.image).parts()
        self.assertEqual(config["config"]["User"], "65532:65532")
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            self.assertEqual(archive.extractfile("usr/bin/lastkey").read(), BINARY)
            self.assertEqual(archive.getmember("usr/bin/lastkey").mode, 0o755)
            state = archive.getmember("var/lib/lastkey")
            self.assertEqual((state.uid, state.mode), (65532, 0o700))
            self.assertEqual({entry.mtime for entry in archive.getmembers()}, {0})

    def test_tag_keeps_to_the_grammar(self):
        index = json.loads(oci_image.Image(self.image).file("index.json"))
        annotations = index["manifests"][0]["annotations"]
        self.assertEqual(annotations["org.opencontainers.image.ref.name"], "1.2.3-dirty")

    def test_changed_layer_is_refused(self):
        def change(files):
            name = self.blob_with(files, b"\x1f\x8b")
            files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])

        self.refused(change, "layer: digest is another")

    def test_shortened_config_is_refused(self):
        def change(files):
            name = self.blob_with(files, b'"diff_ids"')
            files[name] = files[name][:-1]

        self.refused(change, "config: size")

    def test_missing_layout_file_is_refused(self):
        self.refused(lambda files: files.pop("oci-layout"), "oci-layout is missing")

    def test_stray_file_is_refused(self):
        self.refused(lambda files: files.update({"blobs/sha256/stray": b""}), "nothing refers to")

    def test_other_platform_in_the_index_is_refused(self):
        def change(files):
            files["index.json"] = files["index.json"].replace(b"amd64", b"arm64")

        self.refused(change, "platform is not the config's")


if __name__ == "__main__":
    unittest.main()
