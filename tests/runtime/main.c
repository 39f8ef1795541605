/* A model server for tests that misbehaves on demand: test-runtime PORT DIR
 *
 * Files in DIR say what it does, from the moment they are there:
 *   loaded  it is healthy; before, /health answers 503
 *   hang    it accepts and never answers
 *   die     it ends with status 3
 *   leak    it takes 64 MiB more, once
 *   slow    it answers no chat, until the file is gone
 * It appends its process id to DIR/pids, a line for each chat to DIR/calls, and says what it does
 * on stdout. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEAK_BYTES ((size_t)64 * 1024 * 1024)
#define TURN_MS 20
#define HELD_MAX 64

static const char *dir;

static bool is_told(const char *what)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, what);
    return access(path, F_OK) == 0;
}

static void say(const char *name, int number)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "ae");
    if (file == NULL)
        return;
    fprintf(file, "%d\n", number);
    fclose(file);
}

static void leak(void)
{
    static char *more;
    if (more != NULL || !is_told("leak"))
        return;
    more = malloc(LEAK_BYTES);
    if (more != NULL)
        memset(more, 1, LEAK_BYTES);
    puts("leaked");
}

/* The whole request, as far as it matters: its first bytes. */
static bool read_request(int fd, char *request, size_t size)
{
    size_t len = 0;
    while (len + 1 < size) {
        ssize_t n = read(fd, request + len, size - 1 - len);
        if (n <= 0)
            return false;
        len += (size_t)n;
        request[len] = '\0';
        if (strstr(request, "\r\n\r\n") != NULL)
            return true;
    }
    return true;
}

static int held[HELD_MAX]; /* connections of chats that wait for their answer */
static size_t n_held;

static void reply(int fd, const char *status, const char *body)
{
    dprintf(fd,
            "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
            "Content-Length: %zu\r\n\r\n%s",
            status, strlen(body), body);
    close(fd);
}

static void reply_chat(int fd)
{
    reply(fd, "200 OK",
          "{\"model\":\"local\",\"choices\":[{\"message\":{\"content\":\"from the runtime\"},"
          "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,"
          "\"completion_tokens\":3}}");
}

static void answer(int fd)
{
    char request[65536];
    if (!read_request(fd, request, sizeof request)) {
        close(fd);
        return;
    }
    bool chat = strstr(request, "POST ") == request;
    if (chat)
        say("calls", 1);
    if (!is_told("loaded"))
        reply(fd, "503 Service Unavailable", "{\"error\":\"Loading model\"}");
    else if (!chat)
        reply(fd, "200 OK", "{\"status\":\"ok\"}");
    else if (is_told("slow") && n_held < HELD_MAX)
        held[n_held++] = fd;
    else
        reply_chat(fd);
}

static int serve(int listener)
{
    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        int n = poll(&ready, 1, TURN_MS);
        if (is_told("die")) {
            puts("dying");
            return 3;
        }
        leak();
        while (n_held > 0 && !is_told("slow"))
            reply_chat(held[--n_held]);
        if (n <= 0 || is_told("hang"))
            continue;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        answer(fd);
    }
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 3) {
        fputs("usage: test-runtime PORT DIR\n", stderr);
        return 2;
    }
    dir = argv[2];
    say("pids", (int)getpid());
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 16) != 0) {
        printf("cannot listen: %s\n", strerror(errno));
        return 1;
    }
    printf("gpu %s secret %s\n", getenv("CUDA_VISIBLE_DEVICES"), getenv("PLANTED_SECRET"));
    return serve(listener);
}
