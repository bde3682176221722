"""Checks that embedding and LLM servers have in common: refusals, their form, and who may call."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from citadel_client.conformance.detection import Subject
from citadel_client.conformance.findings import Finding, Grade
from citadel_client.conformance.server import Reply

AT_ONCE = 8
NO_MODEL = "citadel-check-no-such-model"
WRONG_KEY = "citadel-check-wrong-key"


def noted(check: str, result: str, *, is_good: bool = True, detail: str = "") -> Finding:
    """Return a finding that a setting or a caller should know of unless it is good."""
    return Finding(check=check, result=result, grade="good" if is_good else "note", detail=detail)


def grade_of(refusal: Reply) -> Grade:
    """Return the grade on a refusal: a 5xx, or none in time, reads as an outage."""
    return "good" if 400 <= refusal.status < 500 else "note"


def refusals(unknown: Callable[[], Reply], bad: Callable[[], Reply]) -> Iterator[Finding]:
    """Yield what becomes of an unknown model and of an input of a wrong type, and the form of the errors."""
    replies = {"unknown model": unknown(), "bad input": bad()}
    for check, reply in replies.items():
        if reply.ok:
            yield noted(check, "answered all the same", is_good=False)
        else:
            yield Finding(check=check, result=reply.refused, grade=grade_of(reply), detail=reply.words)
    forms = sorted({reply.error_form for reply in replies.values() if not reply.ok})
    yield noted("error form", " and ".join(forms) or "none seen", is_good="its own" not in forms)


def authorization(subject: Subject, call: Callable[[tuple[str, str] | None], Reply]) -> Finding:
    """Return who may call: a call without the key, and one with a wrong key."""
    key = subject.server.key
    if key is None:
        return noted("authorization", "no key was given", is_good=False)
    wrong = (key[0], key[1].replace(key[1].rpartition(" ")[2], WRONG_KEY))
    replies = [call(None), call(wrong)]
    if any(reply.ok for reply in replies):
        return noted("authorization", "answered without the key", is_good=False)
    return noted("authorization", " and ".join(sorted({reply.refused for reply in replies})))


def at_once(call: Callable[[int], Reply], is_right: Callable[[int, Reply], bool]) -> Finding:
    """Return whether calls at once are all answered rightly."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(call, range(AT_ONCE)))
    right = sum(is_right(number, reply) for number, reply in enumerate(replies))
    failed = next((reply for reply in replies if not reply.ok), None)
    detail = f"{failed.refused}: {failed.words}" if failed else ""
    grade: Grade = "good" if right == AT_ONCE else "note" if failed and failed.status == 429 else "bad"
    return Finding(check="at once", result=f"{right} of {AT_ONCE}", grade=grade, detail=detail)
