"""The transfer engine: what a node lacks of a model, fetched in pieces and verified."""

from agent.transfer.engine import Transfer
from agent.transfer.errors import TransferError, TransferStopped
from agent.transfer.http import Proxies
from agent.transfer.options import TransferOptions
from agent.transfer.progress import TransferProgress, TransferState
from agent.transfer.rate import RateLimit
from agent.transfer.source import SourceUrl
from agent.transfer.xet import XetUse

__all__ = [
    "Proxies",
    "RateLimit",
    "SourceUrl",
    "Transfer",
    "TransferError",
    "TransferOptions",
    "TransferProgress",
    "TransferState",
    "TransferStopped",
    "XetUse",
]
