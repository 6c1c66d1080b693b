"""Pipecat's OpenAITTSService in a pipeline: as_pipecat.py BASE_URL KEY TEXT [SETTINGS [NEXT_TEXT]].

SETTINGS is a JSON object of the service's settings, which are its own defaults otherwise. With NEXT_TEXT the listener
interrupts at the first audio, and the agent goes on with that.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pipecat.frames.frames import EndFrame, ErrorFrame, Frame, InterruptionFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.workers.runner import WorkerRunner
from seen import Server, report

SAMPLE_RATE = 24000
"""In Hz; the service warns where a pipeline has another one."""


class Loudspeaker(FrameProcessor):
    """The pipeline's end, which notes the audio."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self.frames: list[TTSAudioRawFrame] = []
        self.first = asyncio.Event()
        self.first_while_speaking = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            if not self.frames:
                self.first_while_speaking = await asyncio.to_thread(self._server.still_speaks)
            self.frames.append(frame)
            self.first.set()
        await self.push_frame(frame, direction)


async def speak(server: Server, text: str, settings: dict[str, Any], next_text: str) -> None:
    service = OpenAITTSService(
        api_key=server.key, base_url=server.base_url, settings=OpenAITTSService.Settings(**settings)
    )
    loudspeaker = Loudspeaker(server)
    worker = PipelineWorker(
        Pipeline([service, loudspeaker]), params=PipelineParams(audio_out_sample_rate=SAMPLE_RATE), enable_rtvi=False
    )
    errors: list[str] = []

    @worker.event_handler("on_pipeline_error")
    async def note(_worker: PipelineWorker, frame: ErrorFrame) -> None:
        errors.append(frame.error)

    async def converse() -> None:
        await worker.queue_frame(TTSSpeakFrame(text))
        if next_text:
            await loudspeaker.first.wait()
            await worker.queue_frames([InterruptionFrame(), TTSSpeakFrame(next_text)])
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), converse())
    report(
        bytes=sum(len(frame.audio) for frame in loudspeaker.frames),
        frames=len(loudspeaker.frames),
        formats=sorted({(frame.sample_rate, frame.num_channels) for frame in loudspeaker.frames}),
        first_while_speaking=loudspeaker.first_while_speaking,
        errors=errors,
    )


if __name__ == "__main__":
    started = Server()
    said, *rest = started.rest
    chosen, then = (*rest, *("{}", "")[len(rest) :])
    asyncio.run(speak(started, said, json.loads(chosen), then))
