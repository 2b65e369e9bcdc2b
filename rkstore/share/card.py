"""The card of a store in a dataset repository of the Hub: its ``README.md``."""

from rkstore.errors import size
from rkstore.store.markdown import code, facts
from rkstore.store.sites import briefly
from rkstore.store.store import Store

# Not the licence of any of it: the text's decides, and is not known here.
HEAD = """---
license: other
license_name: see-the-licence-of-the-text
tags:
- rkstore
- activations
---
"""


def card(store: Store, url: str) -> str:
    """What a store is and how it is read, in Markdown; nothing of it is read as a link or HTML."""
    source, manifest = store.manifest.source, store.manifest
    model, text = _object(source.get("model")), _object(source.get("text"))
    name = str(model.get("name", "unknown"))
    of_text = " ".join(
        str(part) for key in ("dataset", "config", "split") if (part := text.get(key))
    )
    lines = {
        "model": f"{name}, revision {model.get('revision') or 'not recorded'}",
        "text": of_text or "files, see manifest.json",
        "tokens": f"{manifest.rows:,} in blocks of {manifest.context_size}",
        "sites": briefly(store.hook_names),
        "codec": f"{manifest.codec} in {manifest.format}",
        "size": size(store.stored_bytes()),
        "store": manifest.fingerprint,
        "licence": "see the text's licence",
    }
    first = store.hook_names[0]
    return f"""{HEAD}
# Activations of {code(name)}

Written by [rkstore](https://pypi.org/project/rkstore/). One row is one token.

{facts(lines)}

```python
import rkstore

store = rkstore.open({url!r})
x = store.read({first!r}, 0, 1000)
```

Or all of it, checked and resumable: `rkstore pull {url}`
"""


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
