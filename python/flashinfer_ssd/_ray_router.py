"""Which replica a request goes to: that whose store has most of its prompt."""
from __future__ import annotations

import random
from collections.abc import Container, Sequence
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

#: Most beginnings of prompts that are remembered of what a replica was sent since it last told what it has.
REMEMBERED_COUNT = 65536


def known_count(hashes: Sequence[int], known: Container[int]) -> int:
    """How many of the beginnings, from the shortest on, are known: where a longer one is, so are the shorter ones."""
    return next((count for count, number in enumerate(hashes) if number not in known), len(hashes))


class PrefixRouter(RequestRouter):
    """Sends a request to the replica that has the longest beginning of its prompt, or is about to have it.

    What replicas have they tell themselves, every `request_routing_stats_period_s`, by the hashes of their stores; what they
    were sent since then is remembered here. Among equals, and where nobody has anything, the one with the fewest requests
    under way is taken; where one has as many as it may, the next best.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: What replicas were sent, the oldest first.
        self._sent: dict[ReplicaID, dict[int, None]] = {}
        #: What they told of themselves, as it came and as it is searched.
        self._told: dict[ReplicaID, tuple[Any, frozenset[int]]] = {}

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        present = {replica.replica_id for replica in replicas}
        for memory in (self._sent, self._told):
            for replica in memory.keys() - present:
                del memory[replica]

    async def choose_replicas(self, candidate_replicas: list[RunningReplica],
                              pending_request: PendingRequest | None = None) -> list[list[RunningReplica]]:
        """The replicas in groups, the best first."""
        hashes: Sequence[int] | None = None
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
            hashes = pending_request.kwargs.get("hashes")
        # Of those with as many requests under way the first is taken: what is new goes to who has least. The others look at
        # prompts, of which no hashes are known, and count as having one more to do for a moment.
        sign = -1 if hashes is None else 1
        groups: dict[int, list[RunningReplica]] = {}
        for replica in sorted(candidate_replicas, key=lambda one: (sign * self._held_count(one), random.random())):
            groups.setdefault(self._count(replica, hashes or ()), []).append(replica)
        return [groups[count] for count in sorted(groups, reverse=True)]

    def _stored(self, replica: RunningReplica) -> frozenset[int]:
        """What a replica has told of itself."""
        told = (replica.routing_stats or {}).get("hashes") or ()
        memory = self._told.get(replica.replica_id)
        if memory is None or memory[0] is not told:
            memory = self._told[replica.replica_id] = (told, frozenset(told))
        return memory[1]

    def _held_count(self, replica: RunningReplica) -> int:
        return max(len(self._stored(replica)), len(self._sent.get(replica.replica_id, ())))

    def _count(self, replica: RunningReplica, hashes: Sequence[int]) -> int:
        return max(known_count(hashes, self._stored(replica)),
                   known_count(hashes, self._sent.get(replica.replica_id, {})))

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Remembers what a replica is about to have."""
        sent = self._sent.setdefault(replica_id, {})
        for number in pending_request.kwargs.get("hashes") or ():
            sent.pop(number, None)
            sent[number] = None
        while len(sent) > REMEMBERED_COUNT:
            del sent[next(iter(sent))]
