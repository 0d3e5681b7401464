"""Tags that are saved as they are given."""

from __future__ import annotations

import os

import pytest

from napari_svpseg.plugin.services.tag_saver import TagSaver, open_images_file


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_tags_that_are_not_beside_images_are_for_their_user_only(
    tmp_path, monkeypatch, qapp
):
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path))
    saver = TagSaver()
    path = open_images_file()
    saver.use(path)
    saver.save({"a.tif": ("disc",)}, ("disc",))
    saver.close()  # waits until it is written
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
