# orch-net-link, which joins the hosts of net.sh.
add_executable(orch-net-link chaos/net_link.c)
target_link_libraries(orch-net-link PRIVATE testlib)
