/* The real programs on private sockets, started one by one so that each can be killed on its own.
 */
#ifndef TESTS_LIB_TESTBED_H
#define TESTS_LIB_TESTBED_H

#include "common/json.h"
#include "common/queue.h"
#include "tests/lib/fixture.h"

#define TESTBED_WORKERS 16

struct testbed {
    struct fixture fixture;
    char config[256]; /* path of the configuration that all of them read */
    int sim_port;
    pid_t sim, broker, daemon, workers[TESTBED_WORKERS];
    int starts; /* numbers the logs */
};

/* A private directory and redis-server; with a scenario also the simulator. Then the configuration
 * is written: redis and bus sections, and `yaml` in which each %d is replaced by the simulator's
 * port. Nothing else runs yet. A program that doesn't get ready ends the test. */
void testbed_init(struct testbed *testbed, const char *yaml, const char *scenario);
void testbed_release(struct testbed *testbed);

/* Each returns when the program said it is ready. */
void testbed_start_simulator(struct testbed *testbed, const char *scenario);
void testbed_start_broker(struct testbed *testbed);
void testbed_start_daemon(struct testbed *testbed);
void testbed_start_worker(struct testbed *testbed, int index, const char *name);
/* Broker, daemon and the workers named, which NULL ends. */
void testbed_start(struct testbed *testbed, const char *const *workers);

/* GET /sim/<what> as JSON, which the caller releases; NULL when it didn't answer. */
json_t *testbed_sim(const struct testbed *testbed, const char *what);

/* A subtask of role general that asks for `prompt`; its records live until
 * testbed_release(). */
struct queue_node testbed_node(const char *id, const char *prompt);
struct queue_node testbed_role_node(const char *id, const char *role, const char *prompt);

#endif
