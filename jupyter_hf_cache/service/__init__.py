"""The cache as one object, free of any web framework: `CacheService` and its options."""

from jupyter_hf_cache.service.core import CacheService
from jupyter_hf_cache.service.options import ServiceOptions

__all__ = ["CacheService", "ServiceOptions"]
