// Nothing to call: see thread_sanitizer.c.
#pragma once
