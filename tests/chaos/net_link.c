/* orch-net-link: joins hosts, which are network namespaces, and spoils what passes between them.
 *
 * Each host gets a TUN device; what it sends comes here as IP packets, which net_wire.c lets
 * through, delays or drops. Settings change while it runs, through a socket. Needs CAP_NET_ADMIN
 * and CAP_SYS_ADMIN. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop.h"
#include "schemas/buf.h"
#include "schemas/mem.h"
#include "tests/lib/net_wire.h"

#define DEVICE "wire0"
#define SUBNET 0x0a4d0000u /* 10.77.0.0: host i has 10.77.0.(i + 1) */
#define READS_PER_TURN 64
#define REQUEST_BYTES 4096

struct host {
    struct link *link; /* borrowed */
    int index, fd;
    const char *name;
    uv_poll_t poll;
};

struct link {
    uv_loop_t loop;
    struct host hosts[WIRE_HOSTS];
    int n;
    struct wires *wires;
    struct loop_timer *timer;
    uv_pipe_t control;
};

/* One who asks through the socket: a line, an answer, the end. */
struct client {
    struct link *link;
    uv_pipe_t pipe;
    uv_write_t write;
    struct buf answer;
    size_t len;
    char request[REQUEST_BYTES];
};

static const char usage[] =
    "usage: orch-net-link --control SOCKET [--seed N] [--ready-fd N] HOST=NAMESPACE...\n"
    "       orch-net-link --control SOCKET --send COMMAND\n"
    "\n"
    "Joins network namespaces (of `ip netns add`): the first has 10.77.0.1, and so on. Commands:\n"
    "  set A B NAME=VALUE...   both ways between two hosts; * is each host\n"
    "  one A B NAME=VALUE...   only what A sends to B\n"
    "  heal                    all as in the beginning\n"
    "  stats                   packets of each way that were not just passed\n"
    "Settings:\n"
#define X(name, unit) "  " #name ": " unit "\n"
    WIRE_SETTINGS(X)
#undef X
    ;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "orch-net-link: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- devices ---------------------------------------------------------------------------------- */

static void set_address(int fd, unsigned long request, struct ifreq *device, uint32_t address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    memcpy(&device->ifr_addr, &in, sizeof in);
    if (ioctl(fd, request, device) != 0)
        die("cannot set the address of a device");
}

static void raise_device(int fd, const char *name)
{
    struct ifreq device = {0};
    snprintf(device.ifr_name, sizeof device.ifr_name, "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &device) != 0)
        die("cannot read the flags of a device");
    device.ifr_flags = (short)(device.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &device) != 0)
        die("cannot raise a device");
}

/* In the namespace that this thread is in. */
static int open_device(int index)
{
    struct ifreq device = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(device.ifr_name, sizeof device.ifr_name, DEVICE);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &device) != 0)
        die("cannot make a TUN device");
    int settings = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (settings < 0)
        die("cannot open a socket");
    set_address(settings, SIOCSIFADDR, &device, SUBNET + 1 + (uint32_t)index);
    set_address(settings, SIOCSIFNETMASK, &device, 0xffffff00u);
    raise_device(settings, DEVICE);
    raise_device(settings, "lo");
    close(settings);
    return fd;
}

/* "HOST=NAMESPACE" */
static void open_host(struct link *link, char *text, int home)
{
    struct host *host = &link->hosts[link->n];
    char path[256];
    char *equals = strchr(text, '=');
    if (equals == NULL || link->n == WIRE_HOSTS) {
        errno = EINVAL;
        die(text);
    }
    *equals = '\0';
    snprintf(path, sizeof path, "/run/netns/%s", equals + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        die(path);
    close(fd);
    *host = (struct host){.link = link, .index = link->n, .name = text, .fd = open_device(link->n)};
    link->n++;
    if (setns(home, CLONE_NEWNET) != 0)
        die("cannot return to the first namespace");
}

/* --- packets ---------------------------------------------------------------------------------- */

static void deliver(void *ctx)
{
    struct link *link = ctx;
    char packet[WIRE_PACKET_BYTES];
    size_t len;
    int to;
    while ((len = wires_take(link->wires, clock_ns() / 1000, &to, packet)) > 0)
        if (write(link->hosts[to].fd, packet, len) < 0) /* as on any network: it is lost */
            continue;
    int64_t due_us = wires_due_us(link->wires);
    if (due_us < 0) {
        loop_timer_stop(link->timer);
        return;
    }
    int64_t left_us = due_us - clock_ns() / 1000;
    loop_timer_start(link->timer, left_us > 0 ? (left_us + 999) / 1000 : 0, 0);
}

/* The host that an IPv4 packet is for; -1: none of ours. */
static int destination(const struct link *link, const unsigned char *packet, size_t len)
{
    uint32_t address;
    if (len < 20 || packet[0] >> 4 != 4)
        return -1;
    memcpy(&address, packet + 16, sizeof address);
    int64_t index = (int64_t)ntohl(address) - SUBNET - 1;
    return index >= 0 && index < link->n ? (int)index : -1;
}

static void readable(uv_poll_t *poll, int status, int events)
{
    struct host *host = poll->data;
    struct link *link = host->link;
    unsigned char packet[WIRE_PACKET_BYTES];
    (void)events;
    for (int i = 0; status == 0 && i < READS_PER_TURN; i++) {
        ssize_t len = read(host->fd, packet, sizeof packet);
        if (len <= 0)
            break;
        int to = destination(link, packet, (size_t)len);
        if (to >= 0)
            wires_send(link->wires, host->index, to, packet, (size_t)len, clock_ns() / 1000);
    }
    deliver(link);
}

/* --- commands --------------------------------------------------------------------------------- */

static bool is_named(const struct host *host, const char *name)
{
    return strcmp(name, "*") == 0 || strcmp(name, host->name) == 0;
}

/* False: no such setting or value. */
static bool set_pair(struct link *link, int from, int to, bool both, const char *name, double value)
{
    return wires_set(link->wires, from, to, name, value) == 0 &&
           (!both || wires_set(link->wires, to, from, name, value) == 0);
}

/* "NAME=VALUE" for all ways that the two names stand for. */
static bool set_all(struct link *link, const char *a, const char *b, bool both, char *setting)
{
    char *equals = strchr(setting, '='), *end;
    if (equals == NULL)
        return false;
    *equals = '\0';
    double value = strtod(equals + 1, &end);
    bool good = end != equals + 1 && *end == '\0', any = false;
    for (int from = 0; from < link->n; from++)
        for (int to = 0; to < link->n; to++)
            if (from != to && is_named(&link->hosts[from], a) && is_named(&link->hosts[to], b)) {
                any = true;
                good = good && set_pair(link, from, to, both, setting, value);
            }
    return good && any;
}

static void add_counts(const struct link *link, int from, int to, struct buf *out)
{
    struct wire_counts counts = wires_counts(link->wires, from, to);
    if (counts.lost + counts.cut + counts.doubled + counts.reordered + counts.overflowed == 0)
        return;
    buf_printf(out, "%s %s", link->hosts[from].name, link->hosts[to].name);
#define X(name) buf_printf(out, " " #name "=%llu", (unsigned long long)counts.name);
    WIRE_COUNTS(X)
#undef X
    buf_add_str(out, "\n");
}

static void add_stats(const struct link *link, struct buf *out)
{
    for (int from = 0; from < link->n; from++)
        for (int to = 0; to < link->n; to++)
            add_counts(link, from, to, out);
}

static void obey(struct link *link, char *line, struct buf *out)
{
    char *rest;
    const char *verb = strtok_r(line, " \n", &rest);
    bool good = verb != NULL;
    if (good && strcmp(verb, "heal") == 0) {
        wires_heal(link->wires);
    } else if (good && strcmp(verb, "stats") == 0) {
        add_stats(link, out);
    } else if (good && (strcmp(verb, "set") == 0 || strcmp(verb, "one") == 0)) {
        const char *a = strtok_r(NULL, " \n", &rest), *b = strtok_r(NULL, " \n", &rest);
        char *setting = strtok_r(NULL, " \n", &rest);
        good = a != NULL && b != NULL && setting != NULL;
        for (; good && setting != NULL; setting = strtok_r(NULL, " \n", &rest))
            good = set_all(link, a, b, verb[0] == 's', setting);
    } else {
        good = false;
    }
    buf_add_str(out, good ? "ok\n" : "error: no such command, host, setting or value\n");
}

/* --- the socket ------------------------------------------------------------------------------- */

static void client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    buf_release(&client->answer);
    free(client);
}

static void answered(uv_write_t *write, int status)
{
    struct client *client = write->data;
    (void)status;
    uv_close((uv_handle_t *)&client->pipe, client_closed);
}

static void offer_room(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    struct client *client = handle->data;
    (void)size;
    *ret = uv_buf_init(client->request + client->len,
                       (unsigned)(sizeof client->request - 1 - client->len));
}

static void asked(uv_stream_t *stream, ssize_t len, const uv_buf_t *room)
{
    struct client *client = stream->data;
    (void)room;
    if (len < 0) {
        uv_close((uv_handle_t *)stream, client_closed);
        return;
    }
    client->len += (size_t)len;
    client->request[client->len] = '\0';
    if (strchr(client->request, '\n') == NULL)
        return;
    uv_read_stop(stream);
    obey(client->link, client->request, &client->answer);
    uv_buf_t answer = uv_buf_init(client->answer.data, (unsigned)client->answer.len);
    client->write.data = client;
    if (uv_write(&client->write, stream, &answer, 1, answered) != 0)
        uv_close((uv_handle_t *)stream, client_closed);
}

static void called(uv_stream_t *server, int status)
{
    struct link *link = server->data;
    struct client *client = mem_must_zalloc(sizeof *client);
    client->link = link;
    uv_pipe_init(&link->loop, &client->pipe, 0);
    client->pipe.data = client;
    if (status != 0 || uv_accept(server, (uv_stream_t *)&client->pipe) != 0 ||
        uv_read_start((uv_stream_t *)&client->pipe, offer_room, asked) != 0)
        uv_close((uv_handle_t *)&client->pipe, client_closed);
}

/* The other side: sends the command and prints the answer. 1 when that is an error. */
static int send_command(const char *path, const char *command)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[65536];
    size_t len = 0;
    ssize_t got;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die(path);
    if (dprintf(fd, "%s\n", command) < 0)
        die("cannot send the command");
    while ((got = read(fd, answer + len, sizeof answer - 1 - len)) > 0)
        len += (size_t)got;
    answer[len] = '\0';
    close(fd);
    fputs(answer, stdout);
    return strstr(answer, "ok\n") != NULL ? 0 : 1;
}

/* --- main ------------------------------------------------------------------------------------- */

static void stop(void *ctx, int signal_number)
{
    struct link *link = ctx;
    (void)signal_number;
    uv_stop(&link->loop);
}

static void listen_at(struct link *link, const char *path)
{
    uv_pipe_init(&link->loop, &link->control, 0);
    link->control.data = link;
    mode_t mask = umask(0077);
    if (uv_pipe_bind(&link->control, path) != 0 ||
        uv_listen((uv_stream_t *)&link->control, 16, called) != 0)
        die(path);
    umask(mask);
}

static int serve(struct link *link, const char *path, uint64_t seed, int ready_fd)
{
    link->wires = wires_new(link->n, seed);
    loop_init(&link->loop);
    loop_on_stop(&link->loop, stop, link);
    link->timer = loop_timer_new(&link->loop, deliver, link);
    for (int i = 0; i < link->n; i++) {
        struct host *host = &link->hosts[i];
        host->poll.data = host;
        if (uv_poll_init(&link->loop, &host->poll, host->fd) != 0 ||
            uv_poll_start(&host->poll, UV_READABLE, readable) != 0)
            die("cannot watch a device");
    }
    listen_at(link, path);
    if (ready_fd >= 0 && dprintf(ready_fd, "ready\n") < 0)
        die("cannot say that it is ready");
    uv_run(&link->loop, UV_RUN_DEFAULT);
    loop_timer_free(&link->timer);
    loop_finish(&link->loop);
    wires_free(&link->wires);
    unlink(path);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"control", required_argument, NULL, 'c'},  {"seed", required_argument, NULL, 's'},
        {"ready-fd", required_argument, NULL, 'r'}, {"send", required_argument, NULL, 'x'},
        {"help", no_argument, NULL, 'h'},           {0}};
    static struct link link;
    const char *control = NULL, *command = NULL;
    uint64_t seed = 1;
    int option, ready_fd = -1;
    bool good = true;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            control = optarg;
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 'r')
            ready_fd = atoi(optarg);
        else if (option == 'x')
            command = optarg;
        else
            good = false;
    }
    if (!good || control == NULL || (command == NULL) == (optind == argc)) {
        fputs(usage, stderr);
        return 2;
    }
    if (command != NULL)
        return send_command(control, command);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int i = optind; i < argc; i++)
        open_host(&link, argv[i], home);
    close(home);
    return serve(&link, control, seed, ready_fd);
}
