"""What an embedder cimports from the package itself."""

from feedhandler.abi cimport require_abi
from feedhandler.records cimport Candle, Flags, LevelsView, Quote, Ticker, Trade, TradeFlags
from feedhandler.sink cimport Sink, Tap
