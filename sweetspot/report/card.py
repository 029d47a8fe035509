"""The model card of an export: what it is, how good it is, what it is not, and how to load it, for people.

Written from the values of ``config.json`` alone (:mod:`sweetspot.report.exported`). Names (of studies, classes, data
sets, networks) are other people's text: in the front matter they are quoted, elsewhere escaped or in code spans.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from sweetspot.errors import one_line
from sweetspot.report.arms import arm_called
from sweetspot.report.markdown import code, escaped
from sweetspot.report.sentences import counted, looks, percent, sentence, students_each

_MOST_CLASSES = 20


def card(about: Mapping[str, Any]) -> str:
    """The model card, as Markdown with Hugging Face's front matter."""
    parts = [
        _front_matter(about),
        _summary(about),
        _loading(about),
        _accuracies(about),
        _making(about),
        _data(about),
        _limits(about),
        _files(about),
    ]
    return "\n\n".join(parts) + "\n"


# -- front matter -----------------------------------------------------------------------------------------------------


def yaml_string(text: str) -> str:
    """A text as a double-quoted scalar of YAML, on one line, whatever is in it."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _yaml_escape(c) for c in quoted)


def _yaml_escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _front_matter(about: Mapping[str, Any]) -> str:
    tags = ["image-classification", "knowledge-distillation", "sweetspot", _student(about)["model"]]
    lines = [
        "---",
        "license: unknown",
        "library_name: sweetspot",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {yaml_string(tag)}" for tag in tags),
        "---",
    ]
    return "\n".join(lines)


# -- the parts --------------------------------------------------------------------------------------------------------


def _summary(about: Mapping[str, Any]) -> str:
    teacher, student, point = about["teacher"], _student(about), about["point"]
    parts = [
        f"# {code(student['model'])} taught by {code(teacher['model'])} on {code(about['dataset']['name'])}",
        f"A small network, the student ({student['parameters']:,} parameters), that was trained on the softened "
        f"outputs of a larger one, the teacher ({teacher['parameters']:,} parameters). How long and at which batch "
        f"size the teacher was trained is what the study {code(about['study'])} has searched with Sweetspot: "
        f"**batch size {point['batch_size']}, {counted(point['epochs'], 'epoch')}** ({point['steps']:,} steps; epochs "
        f"are {point['epochs_mean']}: {point['meaning']}).",
        f"**Verdict:** {escaped(sentence(about['verdict']))}",
        *_bullets([*about["further"], *about["notes"]]),
    ]
    return "\n\n".join(parts)


def _loading(about: Mapping[str, Any]) -> str:
    images = about["images"]
    shape = f"{images['channels']}, {images['size']}, {images['size']}"
    return f"""## Loading it

In this folder, with Sweetspot (this is of {escaped(about["versions"]["sweetspot"])}) installed:

```python
import sweetspot, torch
student = sweetspot.load_student(".")
print(student.classes[student(torch.rand(1, {shape})).argmax(1)[0]])
```

Images are float from 0 to 1, or uint8, of shape (N, {shape}); they are normalised inside, and the output are \
logits of shape (N, {len(images["classes"])}). {code("load_teacher")} gives the teacher, {code("student.network")} \
the bare network for further training."""


def _accuracies(about: Mapping[str, Any]) -> str:
    student, teacher, students = _student(about), about["teacher"], about["students"]
    parts = ["## How good it is"]
    if about["comparison"]:
        over = "teachers, students and images" if about["claim"] == "this point" else "students and images"
        parts.append(
            f"Test accuracy of {students_each(about['teachers'], about['seeds'])}, in per cent with 95 % intervals "
            f"over {over}; gains are in percentage points, on the same images."
        )
        parts.append("\n".join(_table(about["comparison"])))
        parts.append(looks(about["test_looks"], about["look"]))
    validation = students["validation"]
    parts.append(
        f"The point was chosen by the validation accuracy of {counted(validation['replicates'], 'student')}: "
        f"{percent(validation['mean'])}{_between(validation)}. Chosen as the best, it is partly luck."
    )
    whose = "the confirmation's fresh" if student["purpose"] == "confirm" else "the search's"
    parts.append(
        f"The student in this folder is one of {whose} {counted(student['chosen_among'], 'student')} (replicate "
        f"{student['replicate']}), the one with the highest validation accuracy: "
        f"{percent(student['accuracy']['value'])}, partly luck again. "
        f"{_own_test_accuracy(about)}"
    )
    parts.append(
        f"The teacher's validation accuracy is {percent(teacher['accuracy']['value'])}{_between(teacher['accuracy'])}, "
        f"over {teacher['accuracy']['images']:,} images."
    )
    return "\n\n".join(parts)


def _own_test_accuracy(about: Mapping[str, Any]) -> str:
    own, every = _student(about)["test_accuracy"], about["students"]["test"]
    if own is None:
        return "Its own test accuracy is not known."
    if every is None:
        return f"Its own test accuracy is {percent(own['value'])}{_between(own)}."
    whose = "a teacher like this" if about["claim"] == "this point" else "this teacher"
    return (
        f"Its own test accuracy is {percent(own['value'])}{_between(own)} over {own['images']:,} images; what to "
        f"expect of a student of {whose} is the mean of all, {percent(every['mean'])}{_between(every)}."
    )


def _table(arms: list[Mapping[str, Any]]) -> Iterator[str]:
    names = {
        arm["arm"]: arm_called(
            arm["arm"], teacher=arm["name"], amount=arm.get("amount"), temperature=arm.get("temperature")
        )
        for arm in arms
    }
    yield "| students of | batch x epochs | accuracy | gain of the best point |"
    yield "|---|---|---|---|"
    for arm in arms:
        where = f"{arm['batch_size']} x {arm['epochs']}" if arm["batch_size"] is not None else ""
        if arm["name"] is not None:
            where = f"{escaped(arm['model'])}, {counted(arm['epochs'], 'epoch')}"
        yield f"| {escaped(names[arm['arm']])} | {where} | {_points(arm['accuracy'])} | {_gained(arm, names)} |"


def _gained(arm: Mapping[str, Any], names: Mapping[str, str]) -> str:
    if arm["same_as_best"]:
        return "same point"
    if (same := arm.get("same_as")) is not None:
        return f"as {escaped(names[same])}"
    return _points(arm["gain_of_best"], "+") if arm["gain_of_best"] is not None else ""


def _making(about: Mapping[str, Any]) -> str:
    recipe, distillation, point = about["recipe"], about["distillation"], about["point"]
    values = recipe["values"]
    optimizer, schedule = values["optimizer"], values["schedule"]
    further = "".join(f", {escaped(name)} {code(_shown(value))}" for name, value in sorted(point["parameters"].items()))
    augmentation = ", ".join(values["data"]["augmentation"]) or "none"
    return "\n\n".join(
        [
            "## How it was made",
            f"- Teacher: {optimizer['name']}, learning rate {optimizer['lr']:.6g} at batch size {point['batch_size']}, "
            f"schedule {schedule['name']}, {counted(point['epochs'], 'epoch')}, augmentation {augmentation}, "
            f"{values['precision']}{further}. Its recipe is {recipe['hash'][:12]}.\n"
            f"- Student: temperature {distillation['temperature']:.6g}, alpha {distillation['alpha']:.6g} (weight of "
            f"the teacher's outputs in the loss), {counted(distillation['epochs'], 'epoch')} at batch size "
            f"{distillation['batch_size']}, {distillation['optimizer']['name']}, learning rate "
            f"{distillation['optimizer']['lr']:.6g}, schedule {distillation['schedule']['name']}, "
            f"{_student(about)['precision']}.",
            f"{code('config.json')} has all of it: under {code('recipe')} and {code('distillation')} what determines "
            f"the two networks, under {code('config')} the study that repeats it, under {code('versions')} what with.",
        ]
    )


def _data(about: Mapping[str, Any]) -> str:
    dataset, images = about["dataset"], about["images"]
    classes = images["classes"]
    named = ", ".join(code(name) for name in classes[:_MOST_CLASSES])
    more = (
        f" and {len(classes) - _MOST_CLASSES:,} more, which config.json names" if len(classes) > _MOST_CLASSES else ""
    )
    colour = {1: "grey ", 3: "colour "}.get(images["channels"], "")
    return f"""## Data

{code(dataset["name"])}: {dataset["train_images"]:,} training and {dataset["validation_images"]:,} validation images, \
{colour}{images["size"]}x{images["size"]}, {len(classes)} classes ({named}{more}). The SHA-256 of its content begins \
with {dataset["hash"][:12]}."""


def _limits(about: Mapping[str, Any]) -> str:
    limits = [
        "All numbers are about this teacher and these students on this data: another teacher seed may have another "
        "best point, and images of another kind another accuracy.",
        "Nobody has looked at how the errors are spread over kinds of images or people, nor at images that are none of "
        "the classes: it names a class for every image.",
        "The licence is unknown because nobody has chosen one here: it depends on what the data allows. Put yours into "
        "the first lines of this file.",
    ]
    return "\n\n".join(["## Limits", *_bullets(limits)])


def _files(about: Mapping[str, Any]) -> str:
    rows = [
        "| file | what | SHA-256 |",
        "|---|---|---|",
        *(
            f"| {code(f'{kind}.safetensors')} | weights, {about[kind]['bytes']:,} bytes | {about[kind]['sha256']} |"
            for kind in ("student", "teacher")
        ),
        f"| {code('config.json')} | format {about['format_version']}, exported {escaped(about['exported'][:10])} | |",
    ]
    return "\n\n".join(["## Files", "\n".join(rows)])


# -- words ------------------------------------------------------------------------------------------------------------


def _student(about: Mapping[str, Any]) -> Mapping[str, Any]:
    student: Mapping[str, Any] = about["student"]
    return student


def _bullets(sentences: list[str]) -> list[str]:
    return ["\n".join(f"- {escaped(each)}" for each in sentences)] if sentences else []


def _shown(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _between(accuracy: Mapping[str, Any]) -> str:
    if accuracy["low"] is None:
        return ""
    return f" (95 % interval {percent(accuracy['low'])} to {percent(accuracy['high'])})"


def _points(interval: Mapping[str, float], sign: str = "") -> str:
    low, high = (f"{100 * interval[bound]:{sign}.1f}" for bound in ("low", "high"))
    return f"{100 * interval['mean']:{sign}.2f} [{low}, {high}]"


def export_text(about: Mapping[str, Any], folder: str) -> RenderableType:
    """What the command line says of an export that it has written."""
    student, test = _student(about), _student(about)["test_accuracy"]
    seen = (
        f"test accuracy {percent(test['value'])}"
        if test
        else f"validation accuracy {percent(student['accuracy']['value'])}"
    )
    lines = [
        f"wrote {one_line(folder)}: teacher {about['teacher']['model']} (batch {about['point']['batch_size']}, "
        f"{counted(about['point']['epochs'], 'epoch')}), student {student['model']} ({seen})",
        *about["notes"],
        f"Load it: sweetspot.load_student({folder!r})",
    ]
    return Text("\n".join(lines))
