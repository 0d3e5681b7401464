"""What is doubtful in a result, and in which order it is asked."""

from __future__ import annotations

import numpy as np

from napari_svpseg.core.labels.doubts import Answer, Doubt, doubts, questions
from napari_svpseg.core.labels.instances import instances_from_maps, targets
from napari_svpseg.core.result import Maps, ObjectProperties
from napari_svpseg.core.settings import PostprocessSettings

SPOTS = {"sure": (20, 20), "weak": (20, 60), "missed": (60, 20)}


def scene():
    """Return maps of a sure object, a weak one, a missed one, and two in one."""
    y, x = np.mgrid[:100, :120]

    def disc(at, r=8):
        return (y - at[0]) ** 2 + (x - at[1]) ** 2 <= r * r

    foreground = np.zeros(y.shape, np.float32)
    for name, p in (("sure", 0.98), ("weak", 0.6), ("missed", 0.35)):
        foreground[disc(SPOTS[name])] = p
    pair = disc((60, 60)) | disc((60, 70))
    halves = np.where(pair, 1 + (x > 65), 0)
    foreground[pair] = 0.98
    whole = np.where(pair, 9, 0) + disc(SPOTS["sure"]) + 2 * disc(SPOTS["weak"])
    distance = targets(whole.astype(int))[1]
    distance = np.where(
        pair, 0.7 * distance + 0.3 * targets(halves.astype(int))[1], distance
    )
    return Maps(foreground, distance.astype(np.float32), None, ObjectProperties(16.0))


def test_each_kind_of_doubt_is_found_once():
    maps = scene()
    settings = PostprocessSettings(split_strength=0.0, min_confidence=0.0)
    labels = instances_from_maps(maps, settings)
    assert labels.max() == 3
    found = {doubt.kind: doubt for doubt in doubts(maps, labels, settings)}
    assert len(doubts(maps, labels, settings)) == 3
    assert found["wrong"].point == SPOTS["weak"]
    assert found["missed"].point == SPOTS["missed"]
    y, x = found["touching"].point
    assert labels[y, x] == labels[60, 65]
    assert 0.3 < found["wrong"].chance < 0.5 and 0.3 < found["missed"].chance < 0.4


def test_nothing_is_doubtful_where_the_model_is_sure():
    maps = scene()
    alone = np.where(np.arange(120) < 45, maps.foreground, 0)
    sure = Maps((alone > 0.9).astype(np.float32), None, None, maps.objects)
    settings = PostprocessSettings()
    assert not doubts(sure, instances_from_maps(sure, settings), settings)
    assert not doubts(Maps(np.zeros((20, 20), np.float32)), np.zeros((20, 20), int))


def test_what_changes_most_in_all_images_comes_first():
    def doubt(chance, area=100, kind="wrong"):
        return Doubt(kind, (0, 0), (0, 1, 0, 1), chance, area)

    lonely, common = doubt(0.5, 900), doubt(0.2)
    asked = questions([[lonely, common], [doubt(0.22), doubt(0.19)], [doubt(0.25)]])
    changes = [question.expected_change for question in asked]
    assert changes == sorted(changes, reverse=True) and asked[0].doubt.area == 100
    assert asked[0].alike == 4 and asked[0].images == 3
    assert next(q for q in asked if q.doubt is lonely).alike == 1
    assert questions([]) == [] == questions([[], []])


def test_each_answer_counts_for_all_doubts_like_it():
    def doubt(y, chance=0.25, area=100, kind="wrong"):
        return Doubt(kind, (y, 0), (y, y + 1, 0, 1), chance, area)

    common, other = [doubt(y) for y in range(6)], doubt(9, 0.25, 100, "missed")
    before = questions([common[:3], [*common[3:], other]])
    assert before[0].doubt.kind == "wrong" and before[-1].doubt is other

    no = questions([common[1:3], [*common[3:], other]], [Answer(common[0], False)])
    now = {question.doubt: question.chance for question in no}
    assert now[common[5]] < 0.25 and now[other] == 0.25  # in the other image as well

    kept = [Answer(one, False) for one in common[:3]]
    assert [q.doubt for q in questions([[], [*common[3:], other]], kept)] == [other]

    yes = questions([common[1:3], [*common[3:], other]], [Answer(common[0], True)])
    assert yes[0].chance > 0.25 and yes[0].doubt.kind == "wrong"
    far = [Answer(doubt(0, 0.25, 900), False), Answer(doubt(0, 0.6), False)]
    assert questions([common], far) == questions([common])


def test_a_doubt_is_about_what_lies_in_its_window():
    one = Doubt("wrong", (5, 5), (4, 8, 3, 9), 0.3, 20)
    assert one.is_about("wrong", (7, 8)) and not one.is_about("wrong", (8, 8))
    assert not one.is_about("missed", (5, 5))
