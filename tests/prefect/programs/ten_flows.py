"""Ten flows at once, each with tasks one after another; prints a line when all of them run, and the ids of their runs."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import named
from prefect import flow, task

STEPS = int(sys.argv[1])
RUNNING = set()


@task(retries=1)
def step(place):
    time.sleep(0.25)
    return place


@flow(name=named("ten"))
def steps(number: int):
    total = 0
    for place in range(STEPS):
        total += step(place)
        if place == 1:
            RUNNING.add(number)
            if len(RUNNING) == 10:
                print("RUNNING", flush=True)
    return total


def run(number):
    state = steps(number, return_state=True)
    assert state.is_completed(), state
    return str(state.state_details.flow_run_id)


with ThreadPoolExecutor(10) as pool:
    print(json.dumps(list(pool.map(run, range(10)))), flush=True)
