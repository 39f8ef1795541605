/* The classes of a failed attempt: errors are classes, not strings. */
#ifndef SCHEMAS_ERROR_CLASS_H
#define SCHEMAS_ERROR_CLASS_H

/* What the queue does with a failure of that class:
 * - RETRY: the same arm may try again after a backoff (or the server's own delay)
 * - WAIT: not on this arm before the backoff is over, on others at once; the attempt does not count
 *   against the limit: the server only asks for patience, or the worker went away
 * - MOVE: another arm, at once; this arm is avoided by this subtask from now on
 * - DEAD: nobody will do better: the subtask is dead */
enum error_action {
    ERROR_RETRY,
    ERROR_WAIT,
    ERROR_MOVE,
    ERROR_DEAD,
};

/* X(constant, name on the wire, action, meaning) */
#define ERROR_CLASSES(X)                                                                           \
    X(NONE, "none", ERROR_RETRY, "no error")                                                       \
    X(RETRY, "retry", ERROR_RETRY, "a passing fault of the server or the connection")              \
    X(RATE_LIMITED, "rate_limited", ERROR_WAIT, "too many requests or tokens for now")             \
    X(QUOTA, "quota", ERROR_MOVE, "no credit or a spend limit: waiting does not help")             \
    X(OVERLOADED, "overloaded", ERROR_WAIT, "the server has no capacity for now")                  \
    X(CONTEXT_TOO_LONG, "context_too_long", ERROR_MOVE, "the prompt exceeds the model's window")   \
    X(REFUSED, "refused", ERROR_MOVE, "the model or a filter declined to answer")                  \
    X(BAD_REQUEST, "bad_request", ERROR_MOVE, "the provider does not accept the request")          \
    X(AUTH, "auth", ERROR_MOVE, "the key is missing, wrong or not allowed")                        \
    X(TIMEOUT, "timeout", ERROR_RETRY, "connect, first token, gap or total time ran out")          \
    X(BAD_RESPONSE, "bad_response", ERROR_RETRY, "no valid answer with its finish signal")         \
    X(WORKER_LOST, "worker_lost", ERROR_WAIT, "the worker went away in the middle")                \
    X(BUDGET, "budget", ERROR_MOVE, "a budget has no room for the call")                           \
    X(INTERNAL, "internal", ERROR_DEAD, "a stored record is damaged or unusable")

enum error_class {
#define X(constant, name, action, meaning) CLASS_##constant,
    ERROR_CLASSES(X)
#undef X
        CLASS_COUNT
};

const char *error_class_name(enum error_class class_);
/* CLASS_COUNT when no class has that name. */
enum error_class error_class_parse(const char *name);
enum error_action error_class_action(enum error_class class_);
const char *error_class_meaning(enum error_class class_);

#endif
