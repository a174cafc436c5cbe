import java.net.InetSocketAddress;
import java.util.Map;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

/** Apache Iceberg's own REST catalog for tests, over a JDBC catalog in SQLite: HOST PORT FOLDER. */
public class IcebergRest {
  public static void main(String[] arguments) throws Exception {
    String folder = arguments[2];
    JdbcCatalog catalog = new JdbcCatalog();
    catalog.initialize(
        "k2",
        Map.of(
            "uri", "jdbc:sqlite:" + folder + "/catalog.db?journal_mode=WAL&busy_timeout=30000",
            "jdbc.schema-version", "V1",
            "warehouse", folder + "/warehouse",
            "io-impl", "org.apache.iceberg.TestTables$LocalFileIO")); // Hadoop's needs Hadoop; this one knows plain paths only
    ServletContextHandler context = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    context.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    Server server = new Server(new InetSocketAddress(arguments[0], Integer.parseInt(arguments[1])));
    server.setHandler(context);
    server.start();
    server.join();
  }
}
