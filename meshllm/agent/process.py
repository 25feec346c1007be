"""Puts the agent together with the model it talks to in real life. Opens nothing."""

from meshllm.agent.service import AgentService
from meshllm.clock import Clock, Waker
from meshllm.config import Settings
from meshllm.layout import Layout
from meshllm.llm.servers import ollama_servers
from meshllm.observe.board import Board


def build_agent(
    settings: Settings, files: Layout, *, clock: Clock, waker: Waker, board: Board | None = None
) -> AgentService:
    """Build the service with an Ollama client. Raises UserError for an unusable address."""
    urls = (settings.ollama_base_url, settings.ollama_base_url_2)
    model = ollama_servers(urls, settings.ollama_model_instruct, clock=clock)
    return AgentService(settings, files, clock=clock, model=model, waker=waker, board=board)
