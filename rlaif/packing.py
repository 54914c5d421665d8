"""How the journal keeps an answer: as JSON, compressed with the phrases that all answers share."""

from __future__ import annotations

import msgspec
import zstandard

from rlaif.types import Completion, Failure

Answer = Completion | Failure

# The most frequent last; 50 bytes a call less than without. Part of the format: never change it. What was packed
# before there were phrases reads the same, for it refers to none.
_PHRASES = (
    b'","logprob":-0.0,"top":[["A",-0.0],["B",-]]},{"token":"{"status":"failed","reason":"server","message":"'
    b'","finish_reason":"length","reasoning":"{"status":"ok","text":"","usage":{"prompt_tokens":100,'
    b'"completion_tokens":1,"cached_tokens":256}},"logprobs":[{"token":"'
)


class Packing:
    """`pack` may run in one thread and the rest in another, no two of them in two."""

    def __init__(self) -> None:
        phrases = zstandard.ZstdCompressionDict(_PHRASES, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        phrases.precompute_compress(level=3)
        # A disk that gives back another byte than it was given is noticed.
        self.pack = zstandard.ZstdCompressor(level=3, dict_data=phrases, write_checksum=True).compress
        self.json = msgspec.json.Encoder().encode
        self._decompress = zstandard.ZstdDecompressor(dict_data=phrases).decompress
        self._decode = msgspec.json.Decoder(Answer).decode

    def unpack(self, packed: bytes) -> Answer:
        """The answer whose `json` was packed. Raises ValueError if it is damaged."""
        try:
            answer: Answer = self._decode(self._decompress(packed))
        except (zstandard.ZstdError, MemoryError, TypeError) as error:  # a damaged head may promise exabytes
            raise ValueError(str(error) or "not enough memory for it") from error
        return answer
