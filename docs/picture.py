"""Draw the summary of a run as docs/demo.svg: `python docs/picture.py runs/pocket`."""

import re
import sys
from pathlib import Path

from rich.console import Console

from monotreme.report.terminal import print_summary
from monotreme.run import open_run

console = Console(record=True, width=100, file=sys.stderr)
print_summary(open_run(Path(sys.argv[1])), console)
svg = console.export_svg(title="monotreme run recipes/pocket.yaml")
without_web_fonts = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
Path(__file__).with_name("demo.svg").write_text(without_web_fonts, encoding="utf-8")
