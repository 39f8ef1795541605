/* The ZAP handler (ZeroMQ RFC 27): answers zmq, at each connection to a CURVE socket of this
 * process, whether the key that the peer has proved to have may come in. One for the process, since
 * zmq asks at one address. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus_internal.h"
#include "schemas/mem.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define KEY_BYTES 32
#define WAITING_MAX 4096 /* questions without an answer yet; more are answered with no */

/* The frames of a question, behind the id of the asking socket and an empty one. */
enum zap_frame {
    ZAP_PEER,
    ZAP_EMPTY,
    ZAP_VERSION,
    ZAP_REQUEST,
    ZAP_DOMAIN,
    ZAP_ADDRESS,
    ZAP_ROUTING_ID,
    ZAP_MECHANISM,
    ZAP_KEY, /* CURVE only */
    ZAP_FRAMES,
};

struct question {
    struct {
        size_t len;
        char text[256]; /* terminated */
    } frames[ZAP_FRAMES];
    size_t n;
    TAILQ_ENTRY(question) entry;
};

static struct bus *handler;
static TAILQ_HEAD(, question) waiting = TAILQ_HEAD_INITIALIZER(waiting);
static size_t n_waiting;
static TAILQ_HEAD(, bus) asking = TAILQ_HEAD_INITIALIZER(asking);
static unsigned domains; /* named so far */

/* --- answering ---------------------------------------------------------------------------- */

static bool is(const struct question *question, enum zap_frame frame, const char *text)
{
    return (size_t)frame < question->n && strcmp(question->frames[frame].text, text) == 0;
}

static const struct bus *asker(const struct question *question)
{
    struct bus *bus;
    TAILQ_FOREACH (bus, &asking, asking)
        if (is(question, ZAP_DOMAIN, bus->domain))
            return bus;
    return NULL;
}

/* A socket that is not encrypted asks too, once there is a handler: it lets everybody in. */
static enum bus_answer answer(const struct question *question, char ret_key[KEYRING_KEY_SIZE])
{
    const struct bus *bus = asker(question);
    ret_key[0] = '\0';
    if (!is(question, ZAP_VERSION, "1.0"))
        return BUS_REFUSE;
    if (bus == NULL)
        return is(question, ZAP_MECHANISM, "NULL") ? BUS_ADMIT : BUS_REFUSE;
    if (!is(question, ZAP_MECHANISM, "CURVE") || question->n != ZAP_FRAMES ||
        question->frames[ZAP_KEY].len != KEY_BYTES || bus->admit == NULL)
        return BUS_REFUSE;
    zmq_z85_encode(ret_key, (const uint8_t *)question->frames[ZAP_KEY].text, KEY_BYTES);
    return bus->admit(bus->ctx, ret_key, question->frames[ZAP_ADDRESS].text);
}

static void send_answer(struct bus *bus, const struct question *question, enum bus_answer given,
                        const char *key)
{
    static const struct {
        const char *code, *text;
    } statuses[] = {
        [BUS_ADMIT] = {"200", "OK"},
        [BUS_LATER] = {"400", "too many wait"},
        [BUS_REFUSE] = {"400", "this key is not known here"},
    };
    const char *user = given == BUS_ADMIT ? key : "";
    const struct {
        const char *data;
        size_t len;
    } frames[] = {
        {question->frames[ZAP_PEER].text, question->frames[ZAP_PEER].len},
        {"", 0},
        {"1.0", 3},
        {question->frames[ZAP_REQUEST].text, question->frames[ZAP_REQUEST].len},
        {statuses[given].code, 3},
        {statuses[given].text, strlen(statuses[given].text)},
        {user, strlen(user)},
        {"", 0}, /* metadata */
    };
    size_t n = sizeof frames / sizeof *frames;
    for (size_t i = 0; i < n; i++)
        if (zmq_send(bus->socket, frames[i].data, frames[i].len,
                     ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0)) < 0)
            break; /* the connection went while it was asked for */
}

/* False when there is nothing to read. What is too long or too much makes it no question. */
static bool read_question(struct bus *bus, struct question *ret)
{
    bool more = true;
    ret->n = 0;
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, bus->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return false;
        }
        size_t len = zmq_msg_size(&frame);
        if (ret->n < ZAP_FRAMES && len < sizeof ret->frames[0].text) {
            ret->frames[ret->n].len = len;
            memcpy(ret->frames[ret->n].text, zmq_msg_data(&frame), len);
            ret->frames[ret->n].text[len] = '\0';
        } else if (ret->n < ZAP_FRAMES) {
            ret->frames[ret->n].len = 0;
            ret->frames[ret->n].text[0] = '\0';
        }
        ret->n++;
        more = zmq_msg_more(&frame) != 0;
        zmq_msg_close(&frame);
    }
    return true;
}

static void keep(const struct question *question)
{
    struct question *kept = mem_must_zalloc(sizeof *kept);
    *kept = *question;
    TAILQ_INSERT_TAIL(&waiting, kept, entry);
    n_waiting++;
}

static void forget(struct question *question)
{
    TAILQ_REMOVE(&waiting, question, entry);
    n_waiting--;
    free(question);
}

static int deliver_question(struct bus *bus)
{
    struct question question;
    char key[KEYRING_KEY_SIZE];
    if (!read_question(bus, &question))
        return -EAGAIN;
    if (question.n <= ZAP_MECHANISM)
        return 0; /* nobody to answer */
    enum bus_answer given = answer(&question, key);
    if (given == BUS_LATER && n_waiting < WAITING_MAX)
        keep(&question);
    else
        send_answer(bus, &question, given, key);
    return 0;
}

/* Who has gone meanwhile gets no answer: zmq drops it. */
void bus_reconsider(struct bus *bus)
{
    struct question *question, *next;
    char key[KEYRING_KEY_SIZE];
    TAILQ_FOREACH_SAFE (question, &waiting, entry, next) {
        enum bus_answer given = asker(question) == bus ? answer(question, key) : BUS_LATER;
        if (given == BUS_LATER)
            continue;
        send_answer(handler, question, given, key);
        bus_touched(handler);
        forget(question);
    }
}

/* --- coming and going --------------------------------------------------------------------- */

static int start(uv_loop_t *loop, struct err *err)
{
    void *socket = zmq_socket(bus_context_use(), ZMQ_ROUTER);
    int rc = socket != NULL && zmq_bind(socket, ZAP_ENDPOINT) == 0 ? 0 : -errno;
    if (rc == 0)
        return bus_adopt(&handler, loop, socket, deliver_question, NULL, err);
    if (socket != NULL)
        zmq_close(socket);
    bus_context_leave();
    return err_set(err, rc, "cannot check the keys of peers: %s", zmq_strerror(-rc));
}

int bus_zap_enter(struct bus *bus, uv_loop_t *loop, struct err *err)
{
    snprintf(bus->domain, sizeof bus->domain, "orchestrator-%u", ++domains);
    bool first = TAILQ_EMPTY(&asking);
    TAILQ_INSERT_TAIL(&asking, bus, asking);
    return first ? start(loop, err) : 0;
}

void bus_zap_leave(struct bus *bus)
{
    struct question *question, *next;
    TAILQ_FOREACH_SAFE (question, &waiting, entry, next)
        if (asker(question) == bus)
            forget(question);
    TAILQ_REMOVE(&asking, bus, asking);
    if (TAILQ_EMPTY(&asking))
        bus_close(&handler);
}
