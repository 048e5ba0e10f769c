/* Calls on sockets, and those that start threads and event loops. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "point.h"

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    return fails("accept", "socket") ? -1 : (int)syscall(SYS_accept4, fd, address, length, flags);
}

ssize_t recvfrom(int fd, void *bytes, size_t count, int flags, struct sockaddr *address, socklen_t *length) {
    return fails("recv", "socket") ? -1 : syscall(SYS_recvfrom, fd, bytes, count, flags, address, length);
}

ssize_t recv(int fd, void *bytes, size_t count, int flags) {
    return recvfrom(fd, bytes, count, flags, NULL, NULL);
}

ssize_t sendto(int fd, const void *bytes, size_t count, int flags, const struct sockaddr *address, socklen_t length) {
    return fails("send", "socket") ? -1 : syscall(SYS_sendto, fd, bytes, count, flags, address, length);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    return sendto(fd, bytes, count, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return fails("sendmsg", "socket") ? -1 : syscall(SYS_sendmsg, fd, message, flags);
}

int socket(int domain, int type, int protocol) {
    return fails("socket", "socket") ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    return fails("bind", "socket") ? -1 : (int)syscall(SYS_bind, fd, address, length);
}

int listen(int fd, int backlog) {
    return fails("listen", "socket") ? -1 : (int)syscall(SYS_listen, fd, backlog);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    return fails("connect", "socket") ? -1 : (int)syscall(SYS_connect, fd, address, length);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    return fails("setsockopt", "socket") ? -1 : (int)syscall(SYS_setsockopt, fd, level, name, value, length);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
    return fails("getsockopt", "socket") ? -1 : (int)syscall(SYS_getsockopt, fd, level, name, value, length);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length) {
    return fails("getsockname", "socket") ? -1 : (int)syscall(SYS_getsockname, fd, address, length);
}

int getpeername(int fd, struct sockaddr *address, socklen_t *length) {
    return fails("getpeername", "socket") ? -1 : (int)syscall(SYS_getpeername, fd, address, length);
}

int socketpair(int domain, int type, int protocol, int fds[2]) {
    return fails("socketpair", "socket") ? -1 : (int)syscall(SYS_socketpair, domain, type, protocol, fds);
}

int epoll_create1(int flags) {
    return fails("epoll_create", "events") ? -1 : (int)syscall(SYS_epoll_create1, flags);
}

int epoll_ctl(int fd, int operation, int target, struct epoll_event *event) {
    return fails("epoll_ctl", "events") ? -1 : (int)syscall(SYS_epoll_ctl, fd, operation, target, event);
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout) {
    return fails("epoll_wait", "events") ? -1 : (int)syscall(SYS_epoll_wait, fd, events, count, timeout);
}

int eventfd(unsigned value, int flags) {
    return fails("eventfd", "events") ? -1 : (int)syscall(SYS_eventfd2, value, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next) next = dlsym(RTLD_NEXT, "pthread_create");
    return fails("start", "thread") ? errno : next(thread, attributes, run, argument);
}
