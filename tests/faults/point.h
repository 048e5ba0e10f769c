/* Calls that can fail (points), and the choice of the one that fails. */

#ifndef POINT_H
#define POINT_H

#include <stddef.h>

/* Counts a call of a point, and logs it. Returns whether the call must fail; errno is then set. */
int fails(const char *call, const char *object);

/* Like `fails`, for the file, socket or pipe behind a descriptor. */
int fails_fd(const char *call, int fd);

/* Like `fails`, for a path that may be relative to the working directory. */
int fails_path(const char *call, const char *path);

/* Appends text to the log. */
void log_text(const char *text, size_t length);

#endif
