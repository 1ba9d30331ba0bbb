"""vanilla_gan's whole run by the source's settings, beside the figures that the source prints."""

from __future__ import annotations

from proof.stages import Result, table

SOURCE_D, SOURCE_G = (-0.663, -0.256), (-3.044, -2.161)
"""The range of the source's printed losses, its epochs 22 to 41 of 550 steps on 55,000 images."""


def text(result: Result) -> str:
    """The whole run beside the source's figures."""
    rows = [row for row in result["rows"] if row[0] % 550 == 0]
    window = [row for row in rows if 22 <= row[0] / 550 <= 41]
    ranges = [(min(row[index] for row in window), max(row[index] for row in window)) for index in (2, 3)]
    inside = [sum(low <= row[index] <= high for row in window) for index, (low, high) in ((2, SOURCE_D), (3, SOURCE_G))]
    sources = (("loss_D", SOURCE_D), ("loss_G", SOURCE_G))
    summary = table(
        ["", "source, 55,000 images", f"here, {result['training_images']:,} images", "rows inside the source's range"],
        [
            [name, f"{low} to {high}", f"{least:.3f} to {most:.3f}", f"{held} of {len(window)}"]
            for (name, (low, high)), (least, most), held in zip(sources, ranges, inside, strict=True)
        ],
    )
    listing = table(
        ["epoch of 550 steps", "loss_D", "loss_G", "inside the source's range (its epochs 22 to 41)"],
        [
            [
                str(int(row[0] // 550)),
                f"{row[2]:.3f}",
                f"{row[3]:.3f}",
                ("yes" if SOURCE_D[0] <= row[2] <= SOURCE_D[1] and SOURCE_G[0] <= row[3] <= SOURCE_G[1] else "no")
                if 22 <= row[0] / 550 <= 41
                else "",
            ]
            for row in rows
        ],
    )
    return (
        f"The last batch's losses at the end of each 550 steps; epochs 22 to 41 beside what the source prints:\n\n"
        f"{summary}\nEach epoch here passes over the images {55_000 / result['training_images']:.1f} times, where the "
        f"source's passes once.\n\n<details><summary>all {len(rows)} epochs</summary>\n\n{listing}\n</details>\n"
    )
