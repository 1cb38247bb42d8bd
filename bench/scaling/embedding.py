"""Real questions through the encoder on an engine; runs in a fresh process.

python embedding.py ENGINE WORKERS NUM
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from curate import sample
from scaling.stages import Clock


def main() -> None:
    engine, workers, num = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    clock = Clock()
    from monotreme.embed import embed
    from monotreme.encoders import BUILT_IN, find_encoder
    from monotreme.engine import open_engine

    texts = sample(2 * num)
    encoder = find_encoder(BUILT_IN, Path(), str)
    with tempfile.TemporaryDirectory() as folder, open_engine(engine, workers, None) as opened:
        embed(texts[:num], encoder, Path(folder), engine=opened)  # workers start, models are loaded
        with clock.step("embedding"):
            embed(texts[num:], encoder, Path(folder), engine=opened)
    print(json.dumps({"slices": clock.slices}))


if __name__ == "__main__":
    main()
