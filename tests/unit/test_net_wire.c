#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/net_wire.h"

/* IPv4 and TCP headers from host a to b, which are also the ports. */
static void make_packet(unsigned char packet[40], int a, int b, unsigned char flags)
{
    memset(packet, 0, 40);
    packet[0] = 0x45;
    packet[9] = 6;
    packet[15] = packet[21] = (unsigned char)a;
    packet[19] = packet[23] = (unsigned char)b;
    packet[33] = flags;
}

static struct wires *open_wires(void)
{
    return wires_new(3, 7);
}

/* What arrives of n packets that are sent 1 ms apart: their number, or the time of the last. */
static int pass(struct wires *wires, int n, unsigned char flags, int64_t *ret_last_us)
{
    unsigned char packet[WIRE_PACKET_BYTES];
    int passed = 0, to;
    for (int i = 0; i < n; i++) {
        make_packet(packet, 1, 2, flags);
        wires_send(wires, 0, 1, packet, 40, i * 1000);
    }
    for (int64_t due; (due = wires_due_us(wires)) >= 0;) {
        assert_int_equal(wires_take(wires, due, &to, packet), 40);
        assert_int_equal(to, 1);
        *ret_last_us = due;
        passed++;
    }
    return passed;
}

static void untouched_packets_pass_at_once(void **state)
{
    (void)state;
    struct wires *wires = open_wires();
    int64_t last;
    assert_int_equal(pass(wires, 100, 0, &last), 100);
    assert_int_equal(last, 99000);
    wires_free(&wires);
}

static void a_cut_has_one_direction(void **state)
{
    (void)state;
    struct wires *wires = open_wires();
    int64_t last;
    assert_int_equal(wires_set(wires, 1, 0, "cut", 1), 0);
    assert_int_equal(pass(wires, 10, 0, &last), 10);
    assert_int_equal(wires_set(wires, 0, 1, "cut", 1), 0);
    assert_int_equal(pass(wires, 10, 0, &last), 0);
    assert_int_equal(wires_counts(wires, 0, 1).cut, 10);
    wires_heal(wires);
    assert_int_equal(pass(wires, 10, 0, &last), 10);
    wires_free(&wires);
}

static void loss_and_doubles_come_from_the_seed(void **state)
{
    (void)state;
    int passed[2];
    for (int i = 0; i < 2; i++) {
        struct wires *wires = open_wires();
        int64_t last;
        wires_set(wires, 0, 1, "loss", 20);
        wires_set(wires, 0, 1, "dup", 10);
        passed[i] = pass(wires, 1000, 0, &last);
        assert_in_range(wires_counts(wires, 0, 1).lost, 150, 250);
        assert_in_range(wires_counts(wires, 0, 1).doubled, 50, 120);
        wires_free(&wires);
    }
    assert_int_equal(passed[0], passed[1]);
}

static void a_delayed_way_keeps_the_order_and_a_slow_one_its_rate(void **state)
{
    (void)state;
    struct wires *wires = open_wires();
    int64_t last;
    wires_set(wires, 0, 1, "delay", 100);
    wires_set(wires, 0, 1, "jitter", 50);
    assert_int_equal(pass(wires, 10, 0, &last), 10);
    assert_in_range(last, 59000, 159000);
    wires_heal(wires);
    wires_set(wires, 0, 1, "rate", 32); /* 10 ms for each packet of 40 bytes */
    assert_int_equal(pass(wires, 10, 0, &last), 10);
    assert_true(last >= 100000);
    wires_free(&wires);
}

static void a_full_queue_loses_what_comes(void **state)
{
    (void)state;
    struct wires *wires = open_wires();
    int64_t last;
    wires_set(wires, 0, 1, "delay", 100000);
    assert_int_equal(pass(wires, 10000, 0, &last), WIRE_QUEUE_BYTES / 40);
    wires_free(&wires);
}

static void half_open_drops_old_connections_and_passes_new_ones(void **state)
{
    (void)state;
    struct wires *wires = open_wires();
    int64_t last;
    wires_set(wires, 0, 1, "halfopen", 1);
    assert_int_equal(pass(wires, 5, 0x10, &last), 0);
    assert_int_equal(pass(wires, 1, 0x02, &last), 1);
    assert_int_equal(pass(wires, 5, 0x10, &last), 5);
    wires_free(&wires);
}

static void wrong_settings_are_refused(void **state)
{
    (void)state;
    struct wires *wires = open_wires();
    assert_int_equal(wires_set(wires, 0, 1, "speed", 1), -ENOENT);
    assert_int_equal(wires_set(wires, 0, 1, "loss", -1), -ERANGE);
    wires_free(&wires);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untouched_packets_pass_at_once),
        cmocka_unit_test(a_cut_has_one_direction),
        cmocka_unit_test(loss_and_doubles_come_from_the_seed),
        cmocka_unit_test(a_delayed_way_keeps_the_order_and_a_slow_one_its_rate),
        cmocka_unit_test(a_full_queue_loses_what_comes),
        cmocka_unit_test(half_open_drops_old_connections_and_passes_new_ones),
        cmocka_unit_test(wrong_settings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
