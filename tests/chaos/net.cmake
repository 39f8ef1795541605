# orch-net-link, which joins the hosts of net.sh, and orch-soak-load, which soak.sh runs.
add_executable(orch-net-link chaos/net_link.c)
target_link_libraries(orch-net-link PRIVATE testlib)
add_executable(orch-soak-load chaos/soak_load.c)
target_link_libraries(orch-soak-load PRIVATE testlib workers)
