"""Uvicorn's HTTP protocol for clients that may be slow on purpose."""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import H11Protocol

from tfvamp_cli.serving.limits import Limits

SLOWEST = 16 * 1024  # bytes of an answer that a client must take within its patience


def patient(limits: Limits) -> type[H11Protocol]:
    """Returns a protocol that drops clients beyond a number, or that send no request, or that take no answer."""

    class Patient(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.resumed = 0
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._look_again()

        def resume_writing(self):  # the client has taken most of what was sent
            super().resume_writing()
            self.resumed += 1

        def _look_again(self):
            """Drops the client if nothing has moved when its time is over."""
            cycle, resumed, left = self.cycle, self.resumed, self.transport.get_write_buffer_size()

            def check():
                if self.transport.is_closing() and not left:
                    return
                asks = self.cycle is None or self.cycle.response_complete
                stuck = left and left - self.transport.get_write_buffer_size() < SLOWEST
                if self.cycle is cycle and self.resumed == resumed and (stuck or (asks and not left)):
                    self.transport.abort()
                    return
                self._look_again()

            self.loop.call_later(limits.patience, check)

    return Patient
