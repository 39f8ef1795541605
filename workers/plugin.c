#include "workers/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schemas/mem.h"

struct plugin {
    void *object;
};

typedef const struct provider *provider_fn(uint32_t abi);

/* --- the file ---------------------------------------------------------------------------------
 */

/* Who could have put something else there. */
static int check_owner(const char *path, const struct stat *info, struct err *err)
{
    bool shared = (info->st_mode & S_IWOTH) != 0;
    if (info->st_uid != 0 && info->st_uid != geteuid())
        return err_set(err, -EPERM,
                       "%s belongs to user %u: a plug-in and its directory must belong to root or "
                       "to the user of the worker",
                       path, (unsigned)info->st_uid);
    if (shared && !(S_ISDIR(info->st_mode) && (info->st_mode & S_ISVTX)))
        return err_set(err, -EPERM, "%s can be written by everybody: chmod o-w %s", path, path);
    return 0;
}

static int check_file(const char *path, struct err *err)
{
    struct stat info;
    if (path[0] != '/')
        return err_set(err, -EINVAL, "plugin: %s is no absolute path", path);
    char *real = realpath(path, NULL);
    if (real == NULL || stat(real, &info) != 0) {
        int rc = -errno;
        free(real);
        return err_set(err, rc, "cannot open the plug-in %s: %s", path, strerror(-rc));
    }
    int rc = 0;
    if (!S_ISREG(info.st_mode))
        rc = err_set(err, -EINVAL, "the plug-in %s is no regular file", path);
    if (rc == 0)
        rc = check_owner(real, &info, err);
    if (rc == 0 && stat(dirname(real), &info) == 0) /* dirname() has cut the path */
        rc = check_owner(real, &info, err);
    free(real);
    return rc;
}

/* --- the provider -----------------------------------------------------------------------------
 */

static int check_api(const char *path, const char *api, struct err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
    if (api == NULL || api[0] == '\0')
        return err_set(err, -EINVAL, "the provider of the plug-in %s has no name (api)", path);
    if (strnlen(api, PLUGIN_API_MAX + 1) > PLUGIN_API_MAX)
        return err_set(err, -EINVAL,
                       "the provider of the plug-in %s has a name (api) of more than %zu bytes",
                       path, PLUGIN_API_MAX);
    if (api[strspn(api, allowed)] != '\0')
        return err_set(err, -EINVAL,
                       "the provider of the plug-in %s has a name (api) with other characters "
                       "than a to z, 0 to 9 and -_.",
                       path);
    return 0;
}

/* The member that is missing; NULL: none is. Without build() there is no HTTP, and so neither
 * events nor failures. */
static const char *missing_member(const struct provider *provider)
{
    const struct {
        const char *name;
        bool there;
    } members[] = {
        {"title", provider->title != NULL},
        {"kinds", provider->kinds != 0},
        {"body", provider->body != NULL},
        {"event", provider->build == NULL || provider->event != NULL},
        {"failure", provider->build == NULL || provider->failure != NULL},
        {"end", provider->build == NULL || provider->end != NULL},
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (!members[i].there)
            return members[i].name;
    return NULL;
}

static int check_provider(const char *path, const struct provider *provider, struct err *err)
{
    if (provider == NULL)
        return err_set(err, -EINVAL,
                       "the plug-in %s does not know version %d of the provider ABI: build it "
                       "against this version's <orchestrator/provider.h>",
                       path, PROVIDER_ABI);
    /* Nothing but the first member may be looked at before. */
    if (provider->abi != PROVIDER_ABI)
        return err_set(err, -EINVAL,
                       "the plug-in %s was built for version %u of the provider ABI, and this "
                       "worker has %d: build it against this version's <orchestrator/provider.h>",
                       path, (unsigned)provider->abi, PROVIDER_ABI);
    int rc = check_api(path, provider->api, err);
    if (rc != 0)
        return rc;
    const char *missing = missing_member(provider);
    if (missing != NULL)
        return err_set(err, -EINVAL, "the provider %s of the plug-in %s has no `%s`", provider->api,
                       path, missing);
    if (provider->framing != PROVIDER_SSE && provider->framing != PROVIDER_NDJSON)
        return err_set(err, -EINVAL, "the provider %s of the plug-in %s has an unknown framing",
                       provider->api, path);
    return 0;
}

/* --- loading ----------------------------------------------------------------------------------
 */

static int load(struct plugin *plugin, const char *path, const struct provider **ret,
                struct err *err)
{
    plugin->object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin->object == NULL)
        return err_set(err, -EINVAL, "the plug-in %s cannot be loaded: %s", path, dlerror());
    provider_fn *fn;
    void *symbol = dlsym(plugin->object, PLUGIN_SYMBOL);
    if (symbol == NULL)
        return err_set(err, -EINVAL, "the plug-in %s does not export %s()", path, PLUGIN_SYMBOL);
    memcpy(&fn, &symbol, sizeof fn); /* ISO C has no cast from an object to a function */
    *ret = fn(PROVIDER_ABI);
    return check_provider(path, *ret, err);
}

int plugin_open(struct plugin **ret, const char *path, const struct provider **ret_provider,
                struct err *err)
{
    const struct provider *provider = NULL;
    int rc = check_file(path, err);
    if (rc != 0)
        return rc;
    struct plugin *plugin = mem_must_zalloc(sizeof *plugin);
    rc = load(plugin, path, &provider, err);
    if (rc != 0) {
        plugin_close(&plugin);
        return rc;
    }
    *ret_provider = provider;
    *ret = plugin;
    return 0;
}

void plugin_close(struct plugin **plugin_ptr)
{
    struct plugin *plugin = *plugin_ptr;
    *plugin_ptr = NULL;
    if (plugin == NULL)
        return;
    if (plugin->object != NULL)
        dlclose(plugin->object);
    free(plugin);
}
