"""A dense feed-forward layer as a mixture of experts: who belongs together, who is asked, what they answer.

Pure: arrays in, arrays out. `inputs` are (tokens, width), `hidden` (tokens, neurons) what comes out of the
activation, `gate` (neurons, width), `down` (width, neurons).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.intp]

CLUSTER_ROUNDS_MAX = 25
SKETCH = 128
"""Dimensions that stand for when a neuron contributes, of as many as there are tokens."""
ACTIVITY_WEIGHT = np.float32(0.5)
"""Of that, against the direction of the neuron's gate row."""
RIDGE = 0.1
LOGITS_SPREAD = 0.02
"""Of a router's logits: the chosen weigh nearly the same, as they did in the dense layer."""


@dataclass(frozen=True)
class Mixture:
    members: Integers
    """(experts, neurons of each)"""
    router: Floats
    """(experts, width)"""
    down: Floats
    """(width, neurons), such that the sum of the chosen comes near the dense layer's answer."""


def dissected(inputs: Floats, hidden: Floats, gate: Floats, down: Floats, experts: int, used: int) -> Mixture:
    features = neuron_features(gate, hidden, down)
    label = balanced_clusters(features, experts)
    members = np.argsort(label, kind="stable").reshape(experts, -1)
    answers = [hidden[:, ids] @ down[:, ids].T for ids in members]
    router, scores = _router(inputs, answers)
    if used < experts:
        down = _refitted(hidden, down, answers, label, _chosen(scores, used))
    return Mixture(members, np.ascontiguousarray(router.T), down)


def neuron_features(gate: Floats, hidden: Floats, down: Floats) -> Floats:
    """(neurons, width + SKETCH): the direction of the gate row, and a random projection of which share the
    neuron has in each token's answer."""
    share = np.abs(hidden)
    share *= np.linalg.norm(down, axis=0)
    share = _unit(share).T
    share -= share.mean(1, keepdims=True)
    chance = np.random.default_rng(1)
    sketch = chance.standard_normal((share.shape[1], SKETCH), np.float32) / np.float32(np.sqrt(SKETCH))
    return np.hstack([_unit(gate), ACTIVITY_WEIGHT * (_unit(share) @ sketch)])


def balanced_clusters(features: Floats, count: int) -> Integers:
    """(rows,) the cluster of each row, all clusters of the same size: k-means from far centres."""
    chance = np.random.default_rng(0)
    centres = features[[chance.integers(len(features))]]
    nearest = ((features - centres[0]) ** 2).sum(1)
    while len(centres) < count:
        far = chance.choice(len(features), p=nearest / nearest.sum())
        centres = np.vstack([centres, features[far]])
        nearest = np.minimum(nearest, ((features - features[far]) ** 2).sum(1))
    label = np.full(len(features), -1)
    for _ in range(CLUSTER_ROUNDS_MAX):
        # the square of each row, the same for all centres, changes no order
        fresh = balanced_labels((centres**2).sum(1) - 2 * features @ centres.T, len(features) // count)
        if (fresh == label).all():
            break
        label = fresh
        centres = np.stack([features[label == cluster].mean(0) for cluster in range(count)])
    return label


def balanced_labels(distance: Floats, capacity: int) -> Integers:
    """(rows,) the nearest column of each row, `capacity` rows a column at most; who would lose most by its
    second choice goes first."""
    distance = distance.copy()
    label = np.full(len(distance), -1)
    room = np.full(distance.shape[1], capacity)
    left = np.arange(len(distance))
    while len(left):
        nearest, regret = distance[left].argmin(1), _regret(distance[left])
        for column in range(len(room)):
            wants = np.flatnonzero(nearest == column)
            first = wants[np.argsort(-regret[wants], kind="stable")[: room[column]]]
            label[left[first]] = column
            room[column] -= len(first)
        distance[:, room == 0] = np.inf
        left = left[label[left] < 0]
    return label


def _regret(distance: Floats) -> Floats:
    two = np.partition(distance, 1, axis=1)[:, :2]
    two = np.where(np.isinf(two), two[:, :1], two)  # with one column left there is nothing to regret
    return two[:, 1] - two[:, 0]


def _router(inputs: Floats, answers: list[Floats]) -> tuple[Floats, Floats]:
    """(width, experts) a ridge regression to the rank of each expert's norm, and its scores."""
    norms = np.stack([np.linalg.norm(answer, axis=1) for answer in answers], axis=1)
    ranks = norms.argsort(1).argsort(1).astype(np.float32) / len(answers)
    gram = inputs.T @ inputs
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    router = np.linalg.solve(gram, inputs.T @ (ranks - ranks.mean(1, keepdims=True)))
    scores = inputs @ router
    return router * np.float32(LOGITS_SPREAD / (scores.std() + 1e-9)), scores


def _chosen(scores: Floats, used: int) -> Floats:
    """(tokens, experts) of ones and zeros."""
    chosen = np.zeros_like(scores)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :used], 1.0, 1)
    return chosen


def _refitted(hidden: Floats, down: Floats, answers: list[Floats], label: Integers, chosen: Floats) -> Floats:
    """`down` moved so that the chosen give what is missing, by least squares over the active neurons. Each
    token counts by its relative error; what is seen little stays as it was."""
    whole, missing = np.zeros_like(answers[0]), np.zeros_like(answers[0])
    for expert, answer in enumerate(answers):
        whole += answer
        missing += answer * (1 - chosen[:, [expert]])
    weight = 1 / (np.linalg.norm(whole, axis=1, keepdims=True) + np.float32(1e-6))
    active = hidden * chosen[:, label]
    active *= weight
    gram = active.T @ active
    diagonal = np.diag(gram).copy()
    gram[np.diag_indices_from(gram)] += diagonal + np.float32(0.1) * diagonal.mean()
    return down + np.linalg.solve(gram, active.T @ (missing * weight)).T


def _unit(rows: Floats) -> Floats:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + np.float32(1e-9))
