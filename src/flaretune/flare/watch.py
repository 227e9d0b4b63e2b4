"""`python -m flaretune watch`: how far a job is, asked of a federation's server as its administrator.

A running job tells its rounds; what came between the last look and its end is read in its results at the server.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.apis.job_def import JobMetaKey
from nvflare.fuel.flare_api.api_spec import JobNotRunning, NoConnection
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from nvflare.lighter.utils import load_crt

from flaretune.engine.errors import failures_below
from flaretune.engine.progress import TOPIC
from flaretune.engine.results import read_summary, results_in
from flaretune.engine.summary import round_lines
from flaretune.errors import UserError

WAITING = ("SUBMITTED", "APPROVED", "DISPATCHED", "RUNNING")  # what a job's status begins with until it has ended
SUCCESS = "FINISHED:COMPLETED"

# NVFlare's reasons for no answer from a job's own process, in our words
SILENT = {"no app command func": "it starts", "no result": "its process starts or ends"}
CERTIFICATE = Path("startup", "client.crt")  # in an administrator's startup kit
MISSES = 10  # looks in a row that a server may leave unanswered


def watch(startup_kit: str, job_id: str, interval: float, as_json: bool, once: bool) -> int:
    """Print a line for every finished round of a job until it ends.

    Args:
        startup_kit: folder of the administrator's startup kit.
        job_id: which job; "" for the one that was submitted last.
        interval: seconds between looks.
        as_json: print what is known as one JSON object a look, instead of lines.

    Returns:
        The exit status: 0 for a job that ended well, or that was looked at once.

    Raises:
        UserError: no such folder, no server, or no job.
    """
    if not Path(startup_kit).is_dir():
        raise UserError(f"--startup_kit {startup_kit}: there is no such folder; give that of an administrator")
    username = administrator_of(startup_kit)
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)  # it logs what it raises, and is heard so
    session = _connect(username, startup_kit)
    try:
        job_id = job_id or _newest(session)
        missed, last_round = 0, -1
        while True:
            try:
                seen = look(session, job_id)
                missed = 0
            except NoConnection as error:  # a busy server answers late, a restarted one knows no old session
                missed += 1
                if once or missed > MISSES:
                    raise UserError(f"job {job_id}: its server does not answer ({error})") from error
                time.sleep(interval)
                with suppress(UserError):
                    other = _connect(username, startup_kit)
                    session.close()
                    session = other
                continue
            has_ended = not seen["status"].startswith(WAITING)
            if as_json:
                print(json.dumps(seen), flush=True)
            else:
                found = closing_lines(session, seen, last_round) if has_ended else lines(seen, last_round)
                for line in found:
                    print(line, flush=True)
                last_round = max([last_round, *(record["round"] for record in seen["rounds"])])
            if once or has_ended:
                return 0 if once or seen["status"].startswith(SUCCESS) else 1
            time.sleep(interval)
    finally:
        session.close()


def administrator_of(startup_kit: str | Path) -> str:
    """Whose startup kit it is, by its certificate, which is what the server goes by.

    Raises:
        UserError: the folder is no administrator's startup kit.
    """
    try:
        subject = load_crt(str(Path(startup_kit) / CERTIFICATE)).subject
    except OSError as error:
        raise UserError(
            f"--startup_kit {startup_kit} is no administrator's startup kit: {CERTIFICATE} cannot be read "
            f"({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"--startup_kit {startup_kit}: {CERTIFICATE} is damaged; provision the kit again") from error
    for entry in subject:
        if entry.rfc4514_attribute_name == "CN" and entry.value:
            return str(entry.value)
    raise UserError(f"--startup_kit {startup_kit}: {CERTIFICATE} names nobody; provision the kit again")


def _connect(username: str, startup_kit: str) -> Session:
    try:
        with redirect_stdout(sys.stderr):  # it says that it connects, which is no JSON
            return new_secure_session(username, startup_kit)
    except (NoConnection, FLCommunicationError, RuntimeError, ValueError, OSError) as error:
        raise UserError(f"--startup_kit {startup_kit}: no session with its server ({error})") from error


def _newest(session: Session) -> str:
    try:
        jobs = session.list_jobs()
    except NoConnection as error:
        raise UserError(f"its server does not answer ({error}): it may be starting; try again") from error
    if not jobs:
        raise UserError("the server has no job; submit one first")
    return max(jobs, key=lambda job: job.get(JobMetaKey.SUBMIT_TIME.value, ""))[JobMetaKey.JOB_ID.value]


def look(session: Session, job_id: str) -> dict[str, Any]:
    """What the server knows of a job: its name and status, and of a running one what `Progress.tell` gives.

    Raises:
        NoConnection: the server did not answer.
        UserError: there is no such job.
    """
    try:
        meta = session.get_job_meta(job_id)
    except NoConnection:
        raise
    except Exception as error:  # NVFlare has an exception of its own for each thing that may be wrong with it
        raise UserError(f"job {job_id}: {error or type(error).__name__}") from error
    status = str(meta.get(JobMetaKey.STATUS.value))
    answers = meta.get(JobMetaKey.JOB_DEPLOY_DETAIL.value) or []
    seen = {
        "job_id": job_id,
        "name": meta.get(JobMetaKey.JOB_NAME.value),
        "status": status,
        "refusals": [answer for answer in answers if not answer.endswith(": OK")],
        "rounds": [],
        "clients": {},
    }
    if status == "RUNNING":
        try:
            return {**seen, **session.do_app_command(job_id, TOPIC, {})}
        except JobNotRunning:  # it has just ended
            return seen
        except Exception as error:  # it has not come so far as to answer
            reason = str(error) or type(error).__name__
            seen["waiting"] = next((ours for theirs, ours in SILENT.items() if theirs in reason), reason)
    return seen


def lines(seen: dict[str, Any], last_round: int) -> list[str]:
    """What a person reads of a look, of rounds those after `last_round`."""
    told = round_lines(seen) if seen["rounds"] else {}
    found = [line for number, line in told.items() if number > last_round]
    job = f"{seen['name']} ({seen['job_id'][:8]})"
    if seen["clients"]:
        heard = ", ".join(
            f"{name} {'never' if ago is None else f'{ago:.0f} s ago'}" for name, ago in seen["clients"].items()
        )
        since = f"{seen['task']} of round {seen['round']} since {seen['sent_seconds_ago']:.0f} s"
        found.append(f"{job}: {since}; heard of {heard}")
    else:
        why = f" (no progress: {seen['waiting']})" if "waiting" in seen else ""
        found.append(f"{job}: {seen['status']}{why}")
    return found


def closing_lines(session: Session, seen: dict[str, Any], last_round: int) -> list[str]:
    """What a person reads of a job that has ended: rounds after `last_round`, how it ended, and why if it failed."""
    ending = [*lines(seen, last_round), *(f"not deployed: {refusal}" for refusal in seen["refusals"])]
    with TemporaryDirectory(prefix="flaretune-watch-") as folder:
        try:
            with redirect_stdout(sys.stderr):
                downloaded = session.download_job_result(seen["job_id"], folder)
        except Exception as error:  # NVFlare has exceptions of its own for each thing that may be wrong
            return [*ending, f"its results cannot be read: {error or type(error).__name__}"]
        rounds: dict[int, str] = {}
        with suppress(UserError):  # a job that has failed early has none
            rounds = round_lines(read_summary(results_in(Path(downloaded))))
        reasons = [f"{failure.who} said: {failure.sentence}" for failure in failures_below(Path(downloaded))]
    return [*(rounds[number] for number in sorted(rounds) if number > last_round), *ending, *reasons]
