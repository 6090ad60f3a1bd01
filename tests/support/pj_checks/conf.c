/* When a port of the conference bridge is freed.
 *
 * conf new       added, and removed before the clock has seen it
 * conf active    added, seen by the clock, removed
 * Prints whether it was free before the next tick of the clock, whether after
 * it, and how many ports are left.
 */
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <stdio.h>
#include <string.h>

enum { RATE = 8000, SAMPLES = 160 };

static int freed;

static void on_destroy(void *arg)
{
    (void)arg;
    freed = 1;
}

static void tick(pjmedia_port *master)
{
    pj_int16_t samples[SAMPLES];
    pjmedia_frame frame;

    memset(&frame, 0, sizeof(frame));
    frame.buf = samples;
    frame.size = sizeof(samples);
    pjmedia_port_get_frame(master, &frame);
}

int main(int argc, char **argv)
{
    pj_caching_pool pools;
    pj_pool_t *pool, *port_pool;
    pjmedia_endpt *endpt;
    pjmedia_conf *conf;
    pjmedia_port *port, *master;
    unsigned slot;
    int before;

    if (argc != 2)
        return 2;
    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    port_pool = pj_pool_create(&pools.factory, "port", 4000, 4000, NULL);
    if (pjmedia_endpt_create(&pools.factory, NULL, 1, &endpt) != PJ_SUCCESS ||
        pjmedia_conf_create(pool, 16, RATE, 1, SAMPLES, 16, PJMEDIA_CONF_NO_DEVICE, &conf) != PJ_SUCCESS ||
        pjmedia_null_port_create(port_pool, RATE, 1, SAMPLES, 16, &port) != PJ_SUCCESS ||
        pjmedia_port_init_grp_lock(port, port_pool, NULL) != PJ_SUCCESS ||
        pjmedia_port_add_destroy_handler(port, NULL, on_destroy) != PJ_SUCCESS)
        return 4;
    master = pjmedia_conf_get_master_port(conf);
    tick(master);

    if (pjmedia_conf_add_port(conf, pool, port, NULL, &slot) != PJ_SUCCESS)
        return 4;
    if (strcmp(argv[1], "active") == 0)
        tick(master);
    if (pjmedia_conf_remove_port(conf, slot) != PJ_SUCCESS)
        return 4;
    pjmedia_port_destroy(port);
    before = freed;
    tick(master);
    printf("%d %d %u\n", before, freed, pjmedia_conf_get_port_count(conf));
    return 0;
}
