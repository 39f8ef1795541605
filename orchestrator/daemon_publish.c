/* What the orchestrator tells taps and the task's log. */
#include <string.h>

#include "orchestrator/daemon_state.h"

/* Workers publish what happens to subtasks that they run; the orchestrator the rest, and for a
 * worker that was lost. */
static bool is_ours(const struct flow_action *action, const char *what)
{
    static const char *const always[] = {"ready", "offered", "unserved", "hedged"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strcmp(always[i], what) == 0)
            return true;
    if (action->alone)
        return true;
    const char *lost = error_class_name(CLASS_WORKER_LOST);
    bool failure = strcmp(what, "retry") == 0 || strcmp(what, "dead") == 0;
    return failure && action->queue != NULL && strcmp(action->queue->error_class, lost) == 0;
}

static void publish_task(struct daemon *daemon, const struct flow_action *action, const char *topic)
{
    struct message message = {.type = MESSAGE_task_event};
    message.task_event =
        (struct msg_task_event){.task = action->task, .what = action->what, .text = action->text};
    peer_event(daemon->peer, topic, &message);
}

static void publish_sub(struct daemon *daemon, const struct flow_action *action, const char *topic,
                        const char *what)
{
    struct message message = {.type = MESSAGE_sub_event}, meta;
    bool known = message_decode_as(&meta, MESSAGE_meta, action->meta.data, action->meta.len) == 0;
    message.sub_event = (struct msg_sub_event){
        .task = action->task,
        .sub = action->sub,
        .what = what,
        .title = known ? meta.meta.title : "",
        .role = known ? meta.meta.role : "",
        .arm = action->arm,
        .worker = action->worker,
        .error = action->text,
        .error_class = action->queue != NULL ? action->queue->error_class : "",
        .attempt = action->queue != NULL ? action->queue->attempt : action->attempt,
    };
    peer_event(daemon->peer, topic, &message);
    if (known)
        message_release(&meta);
}

/* This runs for every event also when nobody listens: snprintf() would be most of its cost. */
static void add_word(char topic[TOPIC_MAX_BYTES], const char *word)
{
    size_t len = strlen(topic), more = strnlen(word, TOPIC_MAX_BYTES - 1 - len);
    memcpy(topic + len, word, more);
    topic[len + more] = '\0';
}

void daemon_publish(struct daemon *daemon, const struct flow_action *action)
{
    char topic[TOPIC_MAX_BYTES] = "";
    const char *what = action->kind == FLOW_OFFER ? "offered" : action->what;
    bool of_sub = *action->sub != '\0';
    if (of_sub && !is_ours(action, what))
        return;
    add_word(topic, "task.");
    add_word(topic, action->task);
    add_word(topic, ".");
    add_word(topic, what);
    if (!peer_wanted(daemon->peer, topic))
        return;
    if (of_sub)
        publish_sub(daemon, action, topic, what);
    else
        publish_task(daemon, action, topic);
}

void daemon_note(struct daemon *daemon, const struct flow_action *action)
{
    struct buf text = {0};
    struct message meta;
    struct route route;
    if (*action->text != '\0') {
        buf_add_str(&text, action->text);
    } else {
        if (daemon_route(daemon, action, &meta, &route, NULL) == 0)
            route_unserved(daemon->config, &route, &text);
        message_release(&meta);
    }
    if (text.len > 0)
        queue_log_note(daemon->queue, action->task, action->sub, text.data);
    buf_release(&text);
}

/* A worker declined; unless another arm may run the subtask now, it waits. */
void daemon_wait(struct daemon *daemon, const struct flow_action *action)
{
    struct message meta;
    struct route route;
    bool waits = daemon_route(daemon, action, &meta, &route, NULL) == 0;
    for (size_t i = 0; waits && i < route.n_arms; i++)
        waits = route.after_ms[i] > 0;
    message_release(&meta);
    if (!waits)
        return;
    struct flow_action publish = *action;
    publish.what = "unserved";
    daemon_note(daemon, action);
    daemon_publish(daemon, &publish);
}
