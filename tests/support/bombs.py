"""Definitions that are small and would make something huge: each must end in a clear error, and harm nobody else.

All need nothing but an orchestration worker: their steps wait, or start sub-runs. `BOMBS` has them by name, each with
the codes of the errors that it may end with. Some are refused when they are submitted, by the same codes.
"""

from dataclasses import dataclass, field
from typing import Any

BIG = "x" * 90_000
MANY = list(range(1000))
CONTEXT = {"big": BIG, "l": MANY}
TOO_LARGE = frozenset({"payload_too_large"})
COSTLY = frozenset({"expression_failed"})
PAUSE = {"step_id": "pause", "type": "wait", "parameters": {"duration": "1ms"}}
SHARED = "${{ context.l.map(i, context.big) }}"
NINE_MEGABYTES = "${{ context.l.filter(i, i < 100).map(i, context.big) }}"


@dataclass(frozen=True, kw_only=True)
class Bomb:
    """One definition.

    Attributes:
        definition: As a client submits it.
        codes: Codes of the errors that it may end with; it must not succeed.
    """

    definition: dict[str, Any]
    codes: frozenset[str] = field(default=TOO_LARGE | COSTLY)


def giving(output: Any, codes: frozenset[str] = TOO_LARGE | COSTLY, **context: Any) -> Bomb:
    """Return a run whose output is an expression's."""
    return Bomb(definition={"context": CONTEXT | context, "steps": [PAUSE], "output": output}, codes=codes)


def reading(parameters: dict[str, Any], type_: str = "llm_query", codes: frozenset[str] = TOO_LARGE | COSTLY) -> Bomb:
    """Return a run whose step evaluates parameters."""
    step = {"step_id": "s", "type": type_, "parameters": parameters}
    return Bomb(definition={"context": CONTEXT, "steps": [step]}, codes=codes)


def sub_run(step_id: str, output: Any, *steps: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return a step that starts a run with an output."""
    nested = {"context": CONTEXT, "steps": list(steps) or [PAUSE], "output": output}
    return {"step_id": step_id, "type": "workflow", "parameters": {"definition": nested}, **others}


def small_sub_run(step_id: str, output: Any, **others: Any) -> dict[str, Any]:
    """Return a step that starts a run whose context is that of the run around it."""
    nested = {"context": {}, "steps": [PAUSE], "output": output}
    parameters = {"definition": nested, "context": {"big": "${{ context.big }}", "l": "${{ context.l }}"}}
    return {"step_id": step_id, "type": "workflow", "parameters": parameters, **others}


def _doubled(levels: int) -> str:
    return "[context.big]" + "".join(f".map(v{n},[v{n},v{n}])" for n in range(levels))


def _deep(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


BOMBS: dict[str, Bomb] = {
    "items that share a text": Bomb(
        definition={"context": CONTEXT, "steps": [PAUSE | {"for_each": {"items": SHARED}}]}, codes=TOO_LARGE
    ),
    "parameters that share a text": reading({"query": "q", "context": SHARED}, codes=TOO_LARGE),
    "output of a run that shares a text": giving(SHARED, TOO_LARGE),
    "a list doubled a hundred times": giving("${{ " + _doubled(100) + " }}"),
    "doubled lists compared": giving("${{ " + _doubled(60) + " == " + _doubled(60) + " }}", COSTLY),
    "a text inserted thousands of times": reading({"query": "${{ context.big }}" * 5000}, codes=COSTLY),
    "a shared list inserted into a text": reading({"query": f"a {SHARED} b"}, codes=COSTLY),
    "a text added to itself": giving("${{ " + "+".join(["context.big"] * 300) + " }}"),
    "an added text in each element": giving("${{ context.l.map(i, context.big + context.big) }}", COSTLY),
    "lists added to each other": giving("${{ context.l.map(i, " + "+".join(["context.l"] * 300) + ") }}"),
    "a joined list": giving("${{ context.l.map(i, context.big).join(context.big) }}", COSTLY),
    "texts split into letters": giving("${{ context.l.map(i, context.big.split('')) }}", COSTLY),
    "letters replaced by texts": giving("${{ context.big.replace('x', context.big) }}", COSTLY),
    "the empty text replaced": giving("${{ context.big.replace('', context.big) }}", COSTLY),
    "wide letters in lower case": giving(
        "${{ context.l.map(i, context.wide.lowerAscii()) }}", COSTLY, wide="Ж" * 90_000
    ),
    "a pattern with many ways": giving("${{ context.l.all(i, context.big.matches('(x+x+)+y') || true) }}" * 40, COSTLY),
    "a pattern with many repetitions": giving(
        "${{ context.l.map(i, context.big.matches('((x{100}){100}){100}y')) }}", COSTLY
    ),
    "maps in maps in maps": giving("${{ context.l.map(i, context.l.map(j, context.l.map(k, i))) }}", COSTLY),
    "a million empty objects": giving("${{ context.l.map(i, context.l.map(j, {})) }}", COSTLY),
    "a million small objects": giving("${{ context.l.map(i, context.l.map(j, {'a': i, 'b': [j]})) }}", COSTLY),
    "a million numbers as texts": giving("${{ context.l.map(i, context.l.map(j, string(i) + string(1.5))) }}", COSTLY),
    "numbers without an end": giving("${{ context.l.map(i, 9223372036854775807 * (i + 2)) }}", COSTLY),
    "objects with a huge name": giving("${{ context.l.map(i, {context.big: i}) }}"),
    "a number looked up in a large object": giving(
        "${{ context.l.all(i, context.l.all(j, !(has(context.m.x) || context.l.exists(k, context.m[k] == 1)))) }}",
        COSTLY,
        m={f"k{n}": n for n in range(20_000)},
    ),
    "escapes six times as long": giving("${{ context.l.map(i, context.low) }}", TOO_LARGE, low="\x01" * 90_000),
    "all of the context a thousand times": reading(
        {"query": "q", "context": ["${{ context }}"] * 1000}, codes=TOO_LARGE
    ),
    "texts to embed that are one text": reading({"text": SHARED}, "embedding", codes=TOO_LARGE),
    "an output that is too deep": Bomb(
        definition={
            "context": {},
            "steps": [
                sub_run("a", _deep(55, 1)),
                *(
                    {
                        "step_id": name,
                        "type": "workflow",
                        "parameters": {
                            "definition": {"steps": [PAUSE], "output": "${{ context.v }}"},
                            "context": {"v": _deep(50, "${{ steps." + before + ".output }}")},
                        },
                    }
                    for before, name in zip("abcdef", "bcdefg", strict=True)
                ),
            ],
        },
        codes=frozenset({"invalid_input", "sub_run_failed"}),
    ),
    "the context of a sub-run": Bomb(
        definition={
            "context": CONTEXT,
            "steps": [
                {
                    "step_id": "s",
                    "type": "workflow",
                    "parameters": {
                        "definition": {"steps": [PAUSE]},
                        "context": {"v": "${{ context.l.filter(i, i < 250).map(i, context.big) }}"},
                    },
                }
            ],
        },
        codes=TOO_LARGE,
    ),
    "a definition made of one step": Bomb(
        definition={
            "context": CONTEXT | {"step": {"type": "wait", "parameters": {"duration": "1ms", "signal": BIG}}},
            "steps": [
                {
                    "step_id": "s",
                    "type": "workflow",
                    "parameters": {"definition": "${{ {'steps': context.l.filter(i, i < 300).map(i, context.step)} }}"},
                }
            ],
        },
        codes=frozenset({"invalid_definition"}),
    ),
    "the output of a sub-run": Bomb(definition={"steps": [sub_run("s", SHARED)]}, codes=frozenset({"sub_run_failed"})),
    "the final context of a sub-run": Bomb(
        definition={
            "context": CONTEXT,
            "steps": [
                sub_run(
                    "s",
                    1,
                    sub_run("t", NINE_MEGABYTES),
                    sub_run("u", NINE_MEGABYTES),
                    sub_run("v", NINE_MEGABYTES),
                )
            ],
        },
        codes=TOO_LARGE,
    ),
    "outputs of a for_each together": Bomb(
        definition={
            "context": CONTEXT,
            "steps": [small_sub_run("s", NINE_MEGABYTES, for_each={"items": [1, 2, 3, 4, 5]})],
            "output": "${{ size(steps.s.output) }}",
        },
        codes=TOO_LARGE,
    ),
}
