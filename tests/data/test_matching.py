"""Proposals for the classes of labels, by their names."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml
from fake_data import CAMVID
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.data import ADE20K, VOC, CarParts, Cityscapes, Facade, PascalPart116
from upernet.data.matching import By, Proposal, as_yaml, propose, words
from upernet.data.sets import published_classes
from upernet.data.sets.broden_plus import broden_plus

OBJECTS = [*published_classes("broden_plus/object")]


def proposed(label: str, *classes: str) -> str:
    (proposal,) = propose([label], classes).values()
    return f"{proposal} {proposal.by}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TrafficLights_red", ("traffic", "light", "red")),
        ("CCTV Camera", ("cctv", "camera")),
        ("_background_", ("background",)),
        ("boxes", ("box",)),
        ("cherries", ("cherry",)),
        ("shelves", ("shelf",)),
        ("glasses", ("glass",)),
        ("bus", ("bus",)),
        ("tennis", ("tennis",)),
        ("Straßen-Bahn2", ("straßen", "bahn2")),
        ("-", ()),
    ],
)
def test_words_of_a_name(name: str, expected: tuple[str, ...]) -> None:
    assert words(name) == expected


@pytest.mark.parametrize(
    ("label", "classes", "expected"),
    [
        ("Cars", ("bus", "car"), "car name"),
        ("DiningTable", ("table", "dining_table"), "dining_table name"),
        ("aeroplane", ("car", "airplane"), "airplane synonym"),
        ("plane", ("aeroplane", "airplane"), "airplane synonym"),
        ("Pavement", ("road", "sidewalk"), "sidewalk synonym"),
        ("bag", ("purse", "handbag"), "handbag synonym"),
        ("sofa", ("chair", "couch"), "couch synonym"),
        ("SignSymbol", ("signboard", "road"), "signboard? similar"),
        ("front_left_door", ("window", "door"), "door? similar"),
        ("chair", ("armchair", "swivel_chair", "chair_other"), "chair_other? similar"),
        ("sidewalk_pavement", ("road", "pavement"), "pavement? similar"),
        ("refridgerator", ("oven", "refrigerator"), "refrigerator? similar"),
        ("pottedplant", ("plant", "pot"), "plant? similar"),
        ("Void", ("avoid", "car"), "null nothing"),
        ("background", ("playground", "car"), "null nothing"),
        ("zebra", ("car", "sky"), "null nothing"),
        ("bear", ("bar", "beer"), "null nothing"),
        ("Fabric/cloth", ("wood", "fabric"), "fabric synonym"),
        ("Carpet/rug", ("rubber/latex", "carpet"), "carpet synonym"),
        ("aeroplane/wheel", ("airplane/-", "airplane/wheel", "car/wheel"), "airplane/wheel synonym"),
        ("car/head light", ("van/headlight", "car/headlight"), "car/headlight name"),
        ("car/headlamp", ("van/headlamps", "car/headlamp"), "car/headlamp name"),
        ("car/windscreen", ("van/windscreen", "car/windscreens_"), "car/windscreens_ name"),
        ("car/hood", ("van/hood", "car/door"), "null nothing"),
        ("", ("car",), "null nothing"),
        ("_", ("-", "car"), "null nothing"),
        ("car", (), "null nothing"),
    ],
)
def test_what_is_proposed(label: str, classes: tuple[str, ...], expected: str) -> None:
    assert proposed(label, *classes) == expected


def test_a_part_that_is_spelled_similarly_stays_with_its_object() -> None:
    assert (
        proposed("car/handlebars left", "bicycle/handlebar left", "car/handlbar left") == "car/handlbar left? similar"
    )


REAL = {
    "camvid": (CAMVID, Counter(name=7, synonym=2, similar=1, nothing=2)),
    "voc": (VOC(root="").annotations["mask"].labels, Counter(name=17, synonym=2, similar=1, nothing=1)),
    "cityscapes": (Cityscapes(root="").annotations["mask"].labels, Counter(name=14, synonym=1, similar=1, nothing=3)),
    "facade": (Facade(root="").labels, Counter(name=6, synonym=1, nothing=2)),
    "carparts": (CarParts(root="").labels, Counter(name=2, synonym=1, similar=13, nothing=3)),
    "ade20k": (ADE20K(root="").annotations["mask"].labels, Counter(name=144, synonym=5, nothing=1)),
}
"""Labels of real data sets, and how those of Broden+'s 335 objects are found that are proposed for them."""


@pytest.mark.parametrize("name", REAL)
def test_real_lists_onto_the_objects_of_broden_plus(name: str) -> None:
    labels, expected = REAL[name]
    found = propose(labels, OBJECTS)
    assert Counter(proposal.by.value for proposal in found.values()) == expected
    assert all(proposal.name in OBJECTS for proposal in found.values() if proposal.by is not By.NOTHING)


def test_some_real_proposals() -> None:
    found = {label: str(p) for label, p in propose([*CAMVID, "aeroplane", "tvmonitor", "rug"], OBJECTS).items()}
    assert found["Pavement"] == "sidewalk"
    assert found["SignSymbol"] == "signboard?"
    assert found["Pedestrian"] == "person"
    assert found["Void"] == "null"
    assert (found["aeroplane"], found["tvmonitor"], found["rug"]) == ("airplane", "monitor", "carpet")


def test_parts_onto_the_parts_of_broden_plus() -> None:
    parts = [f"{thing}/{part}" for thing, names in broden_plus()["part"].items() for part in names]
    found = propose(PascalPart116(root="").annotations["part"].labels, parts)
    assert Counter(p.by.value for p in found.values()) == Counter(name=95, synonym=7, nothing=14)
    assert str(found["aeroplane/wing"]) == "airplane/wing"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(OBJECTS[1:]), min_size=1, max_size=8, unique=True))
def test_a_class_is_its_own_proposal_unless_another_is_written_alike(names: list[str]) -> None:
    for label, proposal in propose(names, names).items():
        assert proposal.by is By.NAME
        assert words(str(proposal.name)) == words(label)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=20), st.lists(st.text(max_size=12), max_size=5))
def test_any_text_has_a_proposal(label: str, classes: list[str]) -> None:
    (proposal,) = propose([label], classes).values()
    assert proposal.name is None or proposal.name in classes


def test_proposals_are_ready_for_yaml() -> None:
    proposals = {"Pavement": Proposal("sidewalk", By.NAME), "No: 1": Proposal(None, By.NOTHING)}
    proposals["Sign, Symbol"] = Proposal("signboard", By.SIMILAR)
    text = as_yaml(proposals)
    assert text == "{Pavement: sidewalk, 'No: 1': null, 'Sign, Symbol': 'signboard?'}"
    assert yaml.safe_load(text) == {"Pavement": "sidewalk", "No: 1": None, "Sign, Symbol": "signboard?"}
    assert as_yaml(proposals, 150).endswith("'signboard?', …}; upernet labels shows the 147 others too")
