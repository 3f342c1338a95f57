"""A real browser without a window, driven over a pipe: Chrome's DevTools protocol in plain Python.

Messages are JSON objects that end with a zero byte; the browser reads them from its descriptor 3
and answers on 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find_browser() -> str | None:
    """Return the program, `GSMAP_BROWSER` first; None where there is none."""
    candidates = [os.environ.get('GSMAP_BROWSER', ''), *NAMES]
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


class Browser:
    """One page in a headless Chromium; use as a context manager.

    Args:
        program: see `find_browser`.
        profile: empty folder for the browser's files.
        timeout_s: for each answer.
    """

    def __init__(self, program: str, profile: Path, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._number = 0
        self._buffer = b''
        child_in, self._to = os.pipe()
        self._from, child_out = os.pipe()
        command = [
            program, '--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu',
            '--disable-dev-shm-usage', '--no-first-run', '--hide-scrollbars',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
            f'--user-data-dir={profile}', 'about:blank',
        ]  # fmt: skip
        # A shell puts the pipes where the browser looks for them.
        script = f'exec "$@" 3<&{child_in} 4>&{child_out}'
        self._process = subprocess.Popen(
            ['bash', '-c', script, 'browser', *command],
            pass_fds=(child_in, child_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self._session = ''
        targets = self.call('Target.getTargets')['targetInfos']
        target = next(item['targetId'] for item in targets if item['type'] == 'page')
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events on the way are noted."""
        self._number += 1
        message: dict[str, Any] = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._to, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]}')
                return answer['result']
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], deadline - time.monotonic())
            piece = os.read(self._from, 1 << 16) if ready else b''
            if not piece:
                raise TimeoutError('the browser does not answer')
            self._buffer += piece
        text, self._buffer = self._buffer.split(b'\0', 1)
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get('method', ''), event.get('params', {})
        if method == 'Network.requestWillBeSent':
            self.requests.append(parameters['request']['url'])
        elif method == 'Runtime.exceptionThrown':
            self.problems.append(json.dumps(parameters['exceptionDetails']))
        elif method == 'Log.entryAdded' and parameters['entry']['level'] == 'error':
            self.problems.append(parameters['entry']['text'])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page."""
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True)
        if 'exceptionDetails' in result:
            raise RuntimeError(f'{expression}: {result["exceptionDetails"]}')
        return result['result'].get('value')

    def wait_for(self, expression: str, timeout_s: float = 30.0) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f'still not true: {expression}; {self.problems}')
            time.sleep(0.05)

    def settle(self) -> None:
        """Let the page draw what it has asked for."""
        self.call(
            'Runtime.evaluate',
            expression='new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))',
            awaitPromise=True,
        )

    def open(self, path: Path, fragment: str = '') -> None:
        """Load a file and wait until it says that it is ready."""
        self.call('Page.navigate', url=path.resolve().as_uri() + fragment)
        self.wait_for("document.documentElement?.dataset.ready === 'true'")
        self.settle()

    def resize(self, width: int, height: int, scale: float = 1.0, mobile: bool = False) -> None:
        """Give the page another size [CSS px]."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width, height=height, deviceScaleFactor=scale, mobile=mobile,
        )  # fmt: skip
        self.call('Emulation.setTouchEmulationEnabled', enabled=mobile)
        self.settle()

    def prefer(self, scheme: str) -> None:
        """Pretend that the system is `light` or `dark`."""
        features = [{'name': 'prefers-color-scheme', 'value': scheme}]
        self.call('Emulation.setEmulatedMedia', features=features)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send a mouse event: `moved`, `pressed`, `released` or `wheel`."""
        name = {'wheel': 'mouseWheel'}.get(kind, f'mouse{kind.capitalize()}')
        if kind in ('pressed', 'released'):
            more = {'button': 'left', 'clickCount': 1, **more}
        self.call('Input.dispatchMouseEvent', type=name, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse."""
        self.mouse('pressed', x, y)
        self.mouse('released', x, y)
        self.settle()

    def tap(self, x: float, y: float) -> None:
        """Touch the screen once."""
        points = [{'x': x, 'y': y}]
        self.call('Input.dispatchTouchEvent', type='touchStart', touchPoints=points)
        self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
        self.settle()

    def screenshot(self, path: Path) -> Path:
        """Write what the page looks like."""
        data = self.call('Page.captureScreenshot', format='png')['data']
        path.write_bytes(base64.b64decode(data))
        return path

    def __enter__(self) -> Browser:
        """Return the browser."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._to)
        os.close(self._from)
