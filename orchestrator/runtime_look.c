#include "orchestrator/runtime_look.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "orchestrator/reach.h"

bool runtime_look_address(const char *url, uint32_t *ret_address, int *ret_port)
{
    struct reach_target target;
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    if (strncmp(url, "http://", 7) != 0 || !reach_target_of_url(&target, url))
        return false;
    const char *host = strcmp(target.host, "localhost") == 0 ? "127.0.0.1" : target.host;
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return false;
    struct sockaddr_in address;
    memcpy(&address, list->ai_addr, sizeof address);
    freeaddrinfo(list);
    *ret_address = address.sin_addr.s_addr;
    *ret_port = target.port;
    return true;
}

/* How runtimes of the api list their models; NULL: it is none. */
static const char *list_path(const char *api)
{
    size_t count;
    const struct detect_runtime *usual = detect_runtimes(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(usual[i].api, api) == 0)
            return usual[i].path;
    return NULL;
}

bool runtime_look_target(struct detect_runtime *ret, const struct config_provider *provider)
{
    const struct config_api *api = config_api(provider->api);
    const char *url = provider->base_url != NULL ? provider->base_url
                      : api != NULL              ? api->base_url
                                                 : NULL;
    *ret = (struct detect_runtime){.provider = provider->name, .api = provider->api};
    ret->path = list_path(provider->api);
    return ret->path != NULL && url != NULL && runtime_look_address(url, &ret->address, &ret->port);
}

void runtime_look_ask(struct detect_runtime *runtimes, size_t count, int budget_ms)
{
    for (size_t at = 0; at < count; at += DETECT_PROBES) {
        size_t left = count - at;
        detect_probe(runtimes + at, left < DETECT_PROBES ? left : DETECT_PROBES, budget_ms);
    }
}

const struct detect_model *runtime_look_model(const struct detect_runtime *runtime,
                                              const char *name)
{
    size_t len = strlen(name);
    bool tagless = strcmp(runtime->api, "ollama") == 0 && strchr(name, ':') == NULL;
    for (size_t i = 0; i < runtime->n_models; i++) {
        const char *other = runtime->models[i].name;
        if (strcmp(other, name) == 0 ||
            (tagless && strncmp(other, name, len) == 0 && strcmp(other + len, ":latest") == 0))
            return &runtime->models[i];
    }
    return NULL;
}
