// sanitizers.h - detects this build's sanitizer, and exempts the shim's own functions from ThreadSanitizer.
#pragma once
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define CC_ASAN(...) __VA_ARGS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define CC_ASAN(...)
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define CC_TSAN(...) __VA_ARGS__
#define CC_NOT_TSAN(...)
#define CC_UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#else
#define CC_TSAN(...)
#define CC_NOT_TSAN(...) __VA_ARGS__
#endif
#define CC_NOSAN __attribute__((no_sanitize("thread")))
#define CC_RT inline __attribute__((noinline, no_sanitize("thread")))  // shim internals
