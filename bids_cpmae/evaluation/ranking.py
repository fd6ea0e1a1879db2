"""What an attacker who sorts a gallery by likeness finds, whatever likeness is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What an attacker who sorts the gallery made of one version.

    Attributes
    ----------
    gallery : int
        People in the gallery.
    distances : dict of str to dict of str to float
        From each person's probe to everybody in the gallery.
    found : dict of str to float
        Share of each person's pictures in which a face was found.
    """

    method: str
    gallery: int
    distances: dict[str, dict[str, float]] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)

    def rank(self, person: str) -> int:
        """Place of a person when the gallery is sorted by likeness to their probe; 1 is recognised.

        Ties go to the person, the cautious way round.
        """
        own = self.distances[person][person]
        return 1 + sum(distance < own for distance in self.distances[person].values())

    @property
    def ranks(self) -> dict[str, int]:
        """Of everybody measured."""
        return {person: self.rank(person) for person in self.distances}

    def verification(self) -> dict[str, tuple[list[float], list[float]]]:
        """Likeness (the higher the liker) of each probe to its own person, and to all others."""
        return {
            person: ([-row[person]], [-value for other, value in row.items() if other != person])
            for person, row in self.distances.items()
        }
